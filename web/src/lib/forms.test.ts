import { QueryClient, VueQueryPlugin } from '@tanstack/vue-query'
import { flushPromises, mount } from '@vue/test-utils'
import { describe, expect, it, vi } from 'vitest'
import { defineComponent, h, shallowRef } from 'vue'
import { ApiError } from '@/api/client'
import { useSaving, useStale } from './forms'

/** A form that sends what answer says. */
function form(answer: () => Promise<string>) {
  const queries = new QueryClient()
  queries.setQueryData(['versions', 'list'], [])
  const done = vi.fn()
  let saving!: ReturnType<typeof useSaving<string>>
  mount(defineComponent({
    setup() {
      saving = useSaving({ key: 'versions', send: answer, done })
      return () => h('form')
    },
  }), { global: { plugins: [[VueQueryPlugin, { queryClient: queries }]] } })
  const send = async () => {
    saving.save.mutate()
    await flushPromises()
  }
  return { saving, send, done, readAgain: () => queries.getQueryState(['versions', 'list'])!.isInvalidated }
}

describe('useSaving', () => {
  it('hands on what the server made of it', async () => {
    const f = form(() => Promise.resolve('made'))
    await f.send()
    expect(f.done.mock.calls[0]![0]).toBe('made')
    expect([f.saving.refused.value, f.saving.elsewhere.value, f.readAgain()]).toEqual([false, false, false])
  })
  it('tells what is wrong at its field, and only there', async () => {
    const f = form(() => Promise.reject(new ApiError(422, 'x', [{ location: 'body.name', message: 'is taken' }, { location: 'body.script.user', message: 'too long' }])))
    await f.send()
    expect(f.saving.wrong('name')).toBe('is taken')
    expect(f.saving.wrong('version')).toBe('')
    expect(f.saving.errors.value).toHaveLength(2)
    expect([f.saving.elsewhere.value, f.done.mock.calls.length]).toEqual([false, 0])
  })
  it('reads again what someone else has changed meanwhile', async () => {
    const f = form(() => Promise.reject(new ApiError(412, 'changed')))
    await f.send()
    expect([f.saving.refused.value, f.saving.elsewhere.value, f.readAgain()]).toEqual([true, false, true])
  })
  it('says so where the server is away', async () => {
    const f = form(() => Promise.reject(new ApiError(0, 'away')))
    await f.send()
    expect([f.saving.refused.value, f.saving.elsewhere.value, f.readAgain()]).toEqual([false, true, false])
  })
})

it('useStale compares what one began with to what there is', () => {
  const base = shallowRef<{ revision: number }>()
  const now = shallowRef<{ revision: number }>()
  const stale = useStale(base, () => now.value)
  expect(stale.value).toBe(false) // something new
  base.value = { revision: 3 }
  expect(stale.value).toBe(false) // it is being read
  now.value = { revision: 3 }
  expect(stale.value).toBe(false)
  now.value = { revision: 4 }
  expect(stale.value).toBe(true)
})
