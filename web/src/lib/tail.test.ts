import { effectScope } from 'vue'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { ApiError } from '@/api/client'
import { cut, useTail, type Tail } from './tail'

describe('cut', () => {
  it('keeps whole lines of the end', () => {
    expect(cut('one\ntwo\n', 100)).toBe('one\ntwo\n')
    expect(cut('one\ntwo\nthree\n', 10, 8)).toBe('three\n')
    expect(cut('without an end of line', 10, 4)).toBe('line')
  })
})

describe('useTail', () => {
  const scope = effectScope()
  let tail: Tail
  let write: WritableStreamDefaultWriter<Uint8Array>
  const bytes = (text: string) => new TextEncoder().encode(text)
  const ask = (signal: AbortSignal) => {
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>()
    write = writable.getWriter()
    signal.addEventListener('abort', () => void write.abort().catch(() => undefined))
    return Promise.resolve(readable)
  }
  beforeEach(() => {
    vi.useFakeTimers()
    tail = scope.run(() => useTail(80))!
  })
  afterEach(() => vi.useRealTimers())

  it('shows what comes, a few times a second, whole letters only', async () => {
    void tail.start(ask)
    await vi.advanceTimersByTimeAsync(0)
    void write.write(bytes('one\n'))
    void write.write(bytes('ü').slice(0, 1))
    await vi.advanceTimersByTimeAsync(0)
    expect(tail.text.value).toBe('')
    await vi.advanceTimersByTimeAsync(80)
    expect(tail.text.value).toBe('one\n')
    expect(tail.open.value).toBe(true)
    void write.write(bytes('ü').slice(1))
    void write.close()
    await vi.advanceTimersByTimeAsync(0)
    expect([tail.text.value, tail.open.value, tail.error.value]).toEqual(['one\nü', false, undefined])
  })
  it('stops, and keeps what there is', async () => {
    void tail.start(ask)
    await vi.advanceTimersByTimeAsync(0)
    void write.write(bytes('one\n'))
    await vi.advanceTimersByTimeAsync(0)
    tail.stop()
    await vi.advanceTimersByTimeAsync(1000)
    expect([tail.text.value, tail.open.value, tail.error.value]).toEqual(['one\n', false, undefined])
  })
  it('says why there is nothing', async () => {
    await tail.start(() => Promise.reject(new ApiError(503, 'agent web-1: not connected')))
    expect(tail.error.value?.message).toBe('agent web-1: not connected')
    expect(tail.open.value).toBe(false)
  })
})
