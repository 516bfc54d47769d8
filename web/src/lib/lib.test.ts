import { describe, expect, it } from 'vitest'
import type { LogLine, Task } from '@/api/types'
import { beside, nextAddress } from '@/router'
import { ansi, marked, plain } from './ansi'
import { idsOf, lineOf, readPayload } from './command'
import { pagesOf, selectorOf } from './fleet'
import { layout } from './grid'
import { jobWords, short } from './label'
import { LogBuffer, matcher, Picked } from './logbuffer'
import { csv, Results, rowOf } from './results'
import { allowed, budget, offered, steps, timeLeft, undone } from './rollout'
import { duration, relative } from './time'

const counts = (c: Partial<Task['counts']> = {}) => ({ total: 10, pending: 0, running: 0, succeeded: 0, failed: 0, unknown: 0, offline: 0, cancelled: 0, skipped: 0, rolled_back: 0, rollback_failed: 0, ...c })
const task = (t: Partial<Task>) => ({ status: 'running', phase: 'wave', wave: 1, action: 'deploy', counts: counts(), strategy: {}, waves: [{ number: 1, size: 10 }], ...t }) as Task

describe('rollout', () => {
  it('allows what is valid', () => {
    expect(allowed(task({ phase: 'promotion', counts: counts({ succeeded: 1 }) }))).toEqual({ promote: true, pause: true, resume: false, abort: true, retry: false, rollback: true })
    expect(allowed(task({ phase: 'wave', counts: counts({ pending: 10 }) }))).toEqual({ promote: false, pause: true, resume: false, abort: true, retry: false, rollback: false })
    expect(allowed(task({ status: 'paused', phase: 'soak', counts: counts({ succeeded: 1 }) }))).toEqual({ promote: false, pause: false, resume: true, abort: true, retry: false, rollback: true })
    for (const status of ['succeeded', 'failed', 'partial', 'aborted', 'rolled_back', 'rolling_back'] as const) {
      expect(Object.values(allowed(task({ status, counts: counts({ succeeded: 10 }) }))).some(Boolean)).toBe(false)
      expect(allowed(task({ status, counts: counts({ succeeded: 4, rolled_back: 3, failed: 2, offline: 1 }) })).retry).toBe(status !== 'rolling_back')
    }
    expect(undone(counts({ succeeded: 1, rolled_back: 2, failed: 1, unknown: 1, offline: 1, cancelled: 1, skipped: 1, rollback_failed: 1 }))).toBe(6)
  })
  it('offers what may be of use', () => {
    const say = (t: Partial<Task>) => offered(task(t)).map((b) => `${b.action}${b.enabled ? '' : '?'}${b.type ? ` ${b.type}` : ''}`).join(', ')
    expect(say({ strategy: { canary: { percent: 10 } }, phase: 'promotion' })).toBe('promote primary, pause, abort, rollback danger')
    expect(say({ counts: counts({ pending: 10 }) })).toBe('pause, abort, rollback? danger')
    expect(say({ status: 'paused' })).toBe('resume primary, abort, rollback danger')
    expect(say({ status: 'failed', counts: counts({ failed: 1 }) })).toBe('retry primary')
    expect(say({ status: 'aborted', counts: counts({ cancelled: 1 }) })).toBe('retry')
    expect(say({ status: 'succeeded', counts: counts({ succeeded: 10 }) })).toBe('')
  })
  it('says where it stands', () => {
    const canary = { strategy: { canary: { percent: 10, soak: '5m', promote: 'manual' } }, waves: [{ number: 0, size: 1, canary: true }, { number: 1, size: 4 }, { number: 2, size: 5 }] } as Partial<Task>
    const line = (t: Partial<Task>) => steps(task({ ...canary, ...t })).map((s) => `${s.key}:${s.state}`).join(' ')
    expect(line({ status: 'starting', phase: 'plan', wave: 0 })).toBe('canary:ahead soak:ahead promotion:ahead wave1:ahead wave2:ahead')
    expect(line({ phase: 'canary', wave: 0 })).toBe('canary:now soak:ahead promotion:ahead wave1:ahead wave2:ahead')
    expect(line({ phase: 'soak', wave: 0 })).toBe('canary:done soak:now promotion:ahead wave1:ahead wave2:ahead')
    expect(line({ phase: 'promotion', wave: 0 })).toBe('canary:done soak:done promotion:now wave1:ahead wave2:ahead')
    expect(line({ phase: 'wave', wave: 2 })).toBe('canary:done soak:done promotion:done wave1:done wave2:now')
    expect(line({ status: 'succeeded', phase: 'done', wave: 2 })).toBe('canary:done soak:done promotion:done wave1:done wave2:done')
    expect(line({ status: 'failed', phase: 'done', wave: 1 })).toBe('canary:done soak:done promotion:done wave1:now wave2:skipped')
    expect(line({ status: 'rolling_back', phase: 'rollback', wave: 1 })).toBe('canary:done soak:done promotion:done wave1:now wave2:skipped rollback:now')
  })
  it('counts', () => {
    expect([budget('10%', 25), budget('3', 25), budget(undefined, 25), budget('100%', 7)]).toEqual([2, 3, 0, 7])
    expect(timeLeft(task({ counts: counts({ pending: 4, running: 2 }) }), 2)).toBe(3000)
    expect(timeLeft(task({ phase: 'soak', counts: counts({ pending: 4 }) }), 2)).toBeUndefined()
    expect(timeLeft(task({ counts: counts({ pending: 4 }) }), 0)).toBeUndefined()
  })
})

describe('jobWords', () => {
  it('says how a job goes about it, where that is told', () => {
    const words = (o: object) => jobWords(o, (key, named) => `${key.split('.').at(-1)} ${Object.values(named ?? {}).join()}`, String)
    expect(words({})).toEqual([])
    expect(words({ concurrency: 5, task_timeout: '1h0m0s', retries: 2, max_failures: '5%', wait_offline: '10m0s' })).toEqual(['concurrency 5', 'timeout 1h', 'retries 2', 'maxFailures 5%', 'waitOffline 10m'])
    expect(['30s', '1m30s', '1h5m0s', '10s'].map(short)).toEqual(['30s', '1m30s', '1h5m', '10s'])
  })
})

describe('LogBuffer', () => {
  const record = (seq: number, text: string, more: Partial<LogLine> = {}): LogLine => ({ seq, client_id: 'a', step: 'deploy', stream: 'stdout', offset: 0, time: '2026-01-01T00:00:00Z', text, ...more })
  it('makes lines of pieces, each stream apart', () => {
    const b = new LogBuffer()
    b.add(record(1, 'one\ntw'))
    b.add(record(2, 'other', { client_id: 'b' }))
    b.add(record(3, 'o\r\nthree\n'))
    b.add(record(4, ' end\n', { client_id: 'b' }))
    expect(b.lines.map((l) => `${l.client} ${l.text}`)).toEqual(['a one', 'a two', 'b other end', 'a three'])
    expect(b.add(record(4, 'again\n'))).toBe(0)
    b.add(record(5, '', { text: undefined, data_base64: btoa('raw\xff\n') }))
    expect(b.lines.at(-1)!.text).toBe('raw\ufffd')
  })
  it('lets go of the oldest', () => {
    const b = new LogBuffer(100)
    for (let i = 1; i <= 500; i++) b.add(record(i, `${i}\n`))
    expect(b.lines.length).toBeLessThanOrEqual(110)
    expect(b.lines.length + b.dropped).toBe(500)
    expect(b.lines.at(-1)!.text).toBe('500')
  })
  it('is searched', () => {
    const b = new LogBuffer()
    b.add(record(1, '\u001b[31mFailed\u001b[0m here\nfine\n'))
    b.add(record(2, 'failed\n', { stream: 'stderr' }))
    expect(matcher({ search: ' ', stream: '', client: '' })).toBeUndefined()
    expect(b.lines.filter(matcher({ search: 'FAILED here', stream: '', client: '' })!)).toHaveLength(1)
    expect(b.lines.filter(matcher({ search: 'failed', stream: 'stderr', client: '' })!)).toHaveLength(1)
  })
  it('says how many lines are new and how many are gone, of all or of those that are picked', () => {
    for (const [search, of] of [['', 1], ['0', 10]] as const) {
      const b = new LogBuffer(100)
      const picked = new Picked(b, matcher({ search, stream: '', client: '' }))
      const shown: string[] = []
      for (let i = 1; i <= 500; i++) {
        b.add(record(i, `${i}\n`))
        if (i % 7 > 0) continue // often several come at once
        const { added, gone } = picked.update()
        const now = picked.lines.map((l) => l.text)
        expect(now.slice(now.length - added)).toEqual(now.filter((text) => !shown.includes(text)))
        expect(shown.slice(0, gone)).toEqual(shown.filter((text) => !now.includes(text)))
        shown.splice(0, shown.length, ...now)
      }
      expect(shown.length).toBeGreaterThan(0)
      expect(shown.filter((text) => of === 1 || text.includes('0'))).toEqual(shown)
    }
  })
})

describe('ansi', () => {
  it('gives pieces of text, never more', () => {
    expect(ansi('plain <b>')).toEqual([{ text: 'plain <b>', cls: '' }])
    expect(ansi('\u001b[1;32mok\u001b[0m and \u001b[38;5;1mred\u001b[39m.')).toEqual([
      { text: 'ok', cls: 'a-2 a-bold' }, { text: ' and ', cls: '' }, { text: 'red', cls: 'a-1' }, { text: '.', cls: '' },
    ])
    expect(plain('\u001b]0;title\u0007a\u001b[2Kb\u0007\u001b[38;2;1;2;3mc')).toBe('abc')
  })
  it('marks what is searched for, in pieces of any look', () => {
    expect(marked('one', ' ')).toEqual([{ text: 'one', cls: '' }])
    expect(marked('Error: \u001b[31merror error\u001b[0m', 'ERROR')).toEqual([
      { text: 'Error', cls: ' hit' }, { text: ': ', cls: '' }, { text: 'error', cls: 'a-1 hit' }, { text: ' ', cls: 'a-1' }, { text: 'error', cls: 'a-1 hit' },
    ])
  })
})

describe('layout', () => {
  it('finds what it placed', () => {
    for (const [n, waves, width] of [[1, [1], 300], [17, [1, 4, 12], 90], [5000, [250, 4750], 600], [100_000, [1000, 9000, 90_000], 640]] as const) {
      const l = layout(n, waves.map((size) => ({ size })), width)
      expect(l.width).toBeLessThanOrEqual(width)
      const seen = new Set<string>()
      const step = Math.max(1, Math.floor(n / 500))
      for (let i = 0; i < n; i += step) {
        const { x, y } = l.place(i)
        expect(l.index(x + l.cell / 2, y + l.cell / 2)).toBe(i)
        expect(y + l.cell).toBeLessThanOrEqual(l.height + 0.01)
        seen.add(`${x},${y}`)
      }
      expect(seen.size).toBe(Math.ceil(n / step))
    }
    expect(layout(10, [{ size: 10 }], 400).index(399, 1)).toBe(-1)
    expect(layout(0, [], 400).index(1, 1)).toBe(-1)
  })
})

describe('fleet', () => {
  it('says a filter as a selector', () => {
    expect(selectorOf({ selector: '', status: '', search: '' })).toBe('*')
    expect(selectorOf({ selector: 'env=prod', status: 'offline', search: '' })).toBe('env=prod,status=offline')
    expect(selectorOf({ selector: '*', status: 'online', search: '' })).toBe('status=online')
    expect(selectorOf({ selector: '', status: '', search: 'x' })).toBeUndefined()
  })
  it('knows the pages', () => {
    expect(pagesOf(0, 30, 100, 1000)).toEqual([0])
    expect(pagesOf(95, 130, 100, 1000)).toEqual([0, 1])
    expect(pagesOf(990, 2000, 100, 1000)).toEqual([9])
    expect(pagesOf(0, 10, 100, 0)).toEqual([0])
  })
})

describe('commands', () => {
  it('are read', () => {
    expect(readPayload(' ')).toEqual({ value: {} })
    expect(readPayload('{"a":1}')).toEqual({ value: { a: 1 } })
    expect(readPayload('[1]')).toEqual({ problem: 'object' })
    expect(readPayload('{')).toHaveProperty('problem')
    expect(idsOf(' a,b\nc  a;')).toEqual(['a', 'b', 'c'])
  })
  it('are said on one line', () => {
    expect(lineOf({ command_type: 'exec_shell', payload: { command: 'uptime' } })).toBe('uptime')
    expect(lineOf({ command_type: 'container.logs', payload: { container: 'a' } })).toBe('container.logs {"container":"a"}')
    expect(lineOf({ command_type: 'system.info', payload: {} }).trim()).toBe('system.info')
  })
  it('have results', () => {
    const shell = rowOf({ client_id: 'a', command_id: 'j.a', outcome: 'failed', error: 'exit code 1', result: { exit_code: 1, stdout: 'out', stderr: '=bad', stdout_truncated: true, stderr_truncated: false } })
    expect(shell).toMatchObject({ exit: 1, cut: true, text: 'out\n\u001b[31m=bad\u001b[0m' })
    expect(rowOf({ client_id: 'b', command_id: 'j.b', outcome: 'succeeded', result: { cpus: 2 } }).text).toBe('{\n  "cpus": 2\n}')
    const r = new Results()
    r.add(shell)
    r.add({ ...shell, client: 'b' })
    r.add({ ...shell, outcome: 'succeeded' })
    expect(r.rows.map((x) => x.outcome)).toEqual(['succeeded', 'failed'])
    expect(csv([{ ...shell, text: '=1+1', error: 'say "no"' }])).toBe('client_id,outcome,exit_code,error,output\r\n"a","failed","1","say ""no""","\'=1+1"\r\n')
  })
})

describe('time', () => {
  it('is told as people do', () => {
    expect(relative(0, 90_000, 'en')).toBe('1 min. ago')
    expect(relative(7_200_000, 0, 'en')).toBe('in 2 hr.')
    expect([duration(300), duration(59_000), duration(3_900_000), duration(90_000_000)]).toEqual(['300 ms', '59 s', '1 h 5 min', '1 d 1 h'])
  })
})

describe('addresses', () => {
  it('stay on this server', () => {
    for (const bad of [undefined, '', 'fleet', '//evil.example', 'https://evil.example', '/\\evil.example', '/a\tb', '/login?next=/x']) expect(nextAddress(bad)).toBe('/')
    expect(nextAddress('/fleet?selector=a%3Db')).toBe('/fleet?selector=a%3Db')
    expect([beside('/temporal/x'), beside('/api/clients'), beside('/openapi.json'), beside('/fleet'), beside('/apis')]).toEqual([true, true, true, false, false])
  })
})
