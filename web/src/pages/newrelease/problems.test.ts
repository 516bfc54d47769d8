import { describe, expect, it } from 'vitest'
import { ApiError } from '@/api/client'
import { emptyDraft, type Draft } from '@/lib/newtask'
import { emptyWhen, type When } from '@/lib/when'
import { needOf, placesOf, restOf } from './problems'

const draft = (d: Partial<Draft> = {}): Draft => ({ ...emptyDraft(), project: 'shop', version: '2.0', ...d })
const when = (w: Partial<When> = {}): When => ({ ...emptyWhen(), ...w })

describe('needOf', () => {
  it('asks for one thing at a time, from top to bottom', () => {
    expect(needOf(draft({ project: '', version: '' }), when(), 0, true)).toBe('project')
    expect(needOf(draft({ version: '' }), when(), 0, true)).toBe('version')
    expect(needOf(draft({ canary: 'own' }), when(), 0, true)).toBe('targets')
    expect(needOf(draft({ canary: 'own' }), when(), 1, true)).toBe('canary')
    expect(needOf(draft(), when(), 1, true)).toBe('mended')
    expect(needOf(draft({ waves: 'half' }), when(), 1, false)).toBe('mended')
    expect(needOf(draft(), when(), 1, false)).toBeUndefined()
  })
  it('wants no version where it uninstalls', () => {
    expect(needOf(draft({ version: '', action: 'uninstall' }), when(), 1, false)).toBeUndefined()
  })
  it('wants a name and a time of a schedule, but no hosts yet', () => {
    expect(needOf(draft(), when({ kind: 'cron', name: ' ' }), 0, false)).toBe('name')
    expect(needOf(draft(), when({ kind: 'once', name: 'n', at: '' }), 0, false)).toBe('at')
    expect(needOf(draft(), when({ kind: 'cron', name: 'n', cron: ' ' }), 0, false)).toBe('cron')
    expect(needOf(draft(), when({ kind: 'cron', name: 'n' }), 0, false)).toBeUndefined()
  })
})

describe('restOf', () => {
  const at = (...locations: string[]) => new ApiError(422, 'x', locations.map((location) => ({ location, message: location })))
  const rest = (e: ApiError, w = when(), d = draft()) => restOf(e, placesOf(d, w, 'script'))?.message
  it('is nothing where fields say all', () => {
    expect(rest(at('body.version', 'body.strategy.canary.soak', 'body.override.script.timeout'))).toBeUndefined()
    expect(rest(at('body.task.targets.selector', 'body.name'), when({ kind: 'cron' }))).toBeUndefined()
  })
  it('is what has no field, or is not shown', () => {
    expect(rest(at('body.version', 'body.elsewhere', 'body.override.git.ref'))).toBe('body.elsewhere; body.override.git.ref')
    expect(rest(at('body.name'))).toBe('body.name') // the name is of a schedule
    expect(rest(at('body.override.script.timeout'), when(), draft({ action: 'uninstall' }))).toBe('body.override.script.timeout')
  })
  it('is all of what names no field', () => {
    const away = new ApiError(0, 'away')
    expect(restOf(away, placesOf(draft(), when(), undefined))).toBe(away)
  })
})
