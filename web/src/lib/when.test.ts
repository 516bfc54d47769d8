import { describe, expect, it } from 'vitest'
import type { Schedule } from '@/api/types'
import { atOf, emptyWhen, firesOf, scheduleOf, whenOf, type When } from './when'

const when = (w: Partial<When>): When => ({ ...emptyWhen(), timezone: 'Europe/Berlin', ...w })
const task = { project: 'shop', version: '2.0', action: 'deploy' as const }

describe('scheduleOf', () => {
  it('says when, and leaves out what was left empty', () => {
    expect(scheduleOf(when({ kind: 'cron', name: ' nightly ', cron: ' @daily ' }), task)).toEqual({ name: 'nightly', task, cron: '@daily', timezone: 'Europe/Berlin', overlap: 'skip' })
    expect(scheduleOf(when({ kind: 'once', name: 'n', at: '2030-01-02T03:04', cron: '@daily', catchup: '10m', jitter: '5s', note: ' why ' }), task)).toEqual({
      name: 'n', task, at: atOf(when({ at: '2030-01-02T03:04' })), timezone: 'Europe/Berlin', overlap: 'skip', catchup_window: '10m', jitter: '5s', note: 'why',
    })
  })
  it('comes back as what was typed', () => {
    const s = { id: 'x', revision: 1, project: 'shop', paused: false, in_effect: true, created_at: '', created_by: '', updated_at: '', next: [], last: [] }
    for (const w of [when({ kind: 'cron', name: 'n', cron: '30 2 * * 1-5', overlap: 'allow', jitter: '1m' }), when({ kind: 'once', name: 'n', at: '2030-01-02T03:04', note: 'why' })]) {
      expect(whenOf({ ...s, ...scheduleOf(w, task) } as unknown as Schedule)).toEqual(w)
    }
    expect(whenOf({ ...s, name: 'n', task, cron: '@daily', jitter: '0s' } as unknown as Schedule)).toMatchObject({ jitter: '', timezone: 'UTC', overlap: 'skip' })
  })
})

it('atOf waits for a whole time', () => {
  expect(atOf(when({ at: 'soon' }))).toBe('')
  expect(atOf(when({ at: '2030-01-02T03:04' }))).toMatch(/^2030-01-0[123]T\d\d:\d\d:00Z$/)
})

it('firesOf is of the kind that was chosen', () => {
  expect(firesOf(when({ kind: 'cron', cron: ' @daily ', at: '2030-01-02T03:04' }))).toEqual({ cron: '@daily', timezone: 'Europe/Berlin' })
  expect(firesOf(when({ kind: 'once' }))).toEqual({ at: '', timezone: 'Europe/Berlin' })
})
