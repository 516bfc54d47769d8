import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { effectScope, nextTick, ref } from 'vue'
import { useSettled } from './settled'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

it('useSettled waits until nothing has changed for a while', async () => {
  const text = ref('a')
  const scope = effectScope()
  const settled = scope.run(() => useSettled(text, 300))!
  expect(settled.value).toBe('a')
  for (const t of ['ab', 'abc']) {
    text.value = t
    await nextTick()
    vi.advanceTimersByTime(299)
    expect(settled.value).toBe('a')
  }
  vi.advanceTimersByTime(1)
  expect(settled.value).toBe('abc')
  text.value = 'gone'
  await nextTick()
  scope.stop()
  vi.advanceTimersByTime(1000)
  expect(settled.value).toBe('abc') // what asked is no longer there
})
