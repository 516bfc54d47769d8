import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { Refresher, staleBy } from './live'

describe('staleBy', () => {
  it('knows every topic, and passes over new ones', () => {
    expect(staleBy('task/1').map((s) => s.key)).toContainEqual(['task', '1'])
    expect(staleBy('task/1').map((s) => s.key)).toContainEqual(['schedules'])
    expect(staleBy('schedules').map((s) => s.key)).toEqual([['schedules'], ['schedule']])
    expect(staleBy('clients').map((s) => s.key)).toContainEqual(['clients'])
    expect(staleBy('system').map((s) => s.key)).toEqual([['system']])
    expect(staleBy('whatever')).toEqual([])
  })
})

describe('Refresher', () => {
  let finish: (() => void)[] = []
  let fetching = 0
  const queries = { invalidateQueries: vi.fn(), isFetching: () => fetching }
  beforeEach(() => {
    vi.useFakeTimers()
    finish = []
    fetching = 0
    queries.invalidateQueries.mockReset().mockImplementation(() => new Promise<void>((resolve) => finish.push(resolve)))
  })
  afterEach(() => vi.useRealTimers())
  const reads = () => queries.invalidateQueries.mock.calls.length
  const done = async () => {
    finish.shift()!()
    await vi.advanceTimersByTimeAsync(0)
  }

  it('reads at once, then no more often than it may', async () => {
    const r = new Refresher(queries)
    r.mark(['a'], 1000)
    expect(reads()).toBe(1)
    await done()
    for (let i = 0; i < 10; i++) r.mark(['a'], 1000)
    await vi.advanceTimersByTimeAsync(900)
    expect(reads()).toBe(1)
    await vi.advanceTimersByTimeAsync(200)
    expect(reads()).toBe(2)
    await done()
    await vi.advanceTimersByTimeAsync(5000)
    expect(reads()).toBe(2)
  })

  it('reads again what changed while it was read, one at a time', async () => {
    const r = new Refresher(queries)
    r.mark(['a'], 100)
    r.mark(['a'], 100)
    r.mark(['a'], 100)
    await vi.advanceTimersByTimeAsync(1000)
    expect(reads()).toBe(1)
    await done()
    await vi.advanceTimersByTimeAsync(3000)
    expect(reads()).toBe(2)
    await done()
    await vi.advanceTimersByTimeAsync(10_000)
    expect(reads()).toBe(2)
  })

  it('does not take an answer that was under way for a new one', async () => {
    const r = new Refresher(queries)
    fetching = 1
    r.mark(['a'], 100)
    fetching = 0
    await done()
    await vi.advanceTimersByTimeAsync(200)
    expect(reads()).toBe(2)
  })

  it('gives what is slow to read its time', async () => {
    const r = new Refresher(queries)
    r.mark(['a'], 100)
    await vi.advanceTimersByTimeAsync(1000)
    await done()
    r.mark(['a'], 100)
    await vi.advanceTimersByTimeAsync(1900)
    expect(reads()).toBe(1)
    await vi.advanceTimersByTimeAsync(200)
    expect(reads()).toBe(2)
  })
})
