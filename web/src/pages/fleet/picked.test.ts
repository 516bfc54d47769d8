import { createPinia, setActivePinia } from 'pinia'
import { beforeEach, describe, expect, it } from 'vitest'
import { nextTick, ref } from 'vue'
import type { Client } from '@/api/types'
import type { FleetFilter } from '@/lib/fleet'
import { useSelection } from '@/stores/selection'
import { usePicked } from './picked'

const client = (n: number) => ({ client_id: `web-${n}` }) as Client
const shift = new MouseEvent('click', { shiftKey: true })

/** A list of many, of which the first were read. */
function list(read: number, f: Partial<FleetFilter> = {}) {
  const filter = ref<FleetFilter>({ selector: '', status: '', search: '', ...f })
  const picked = usePicked(filter, ref(1000), ref(new Map(Array.from({ length: read }, (_, i) => [i, client(i)]))))
  return { filter, picked }
}

describe('usePicked', () => {
  beforeEach(() => setActivePinia(createPinia()))

  it('picks one by one, or from one to another', () => {
    const { picked } = list(10)
    picked.toggle(5)
    picked.toggle(2, shift)
    expect([picked.count.value, picked.some.value]).toEqual([4, true])
    picked.toggle(3)
    picked.toggle(99) // not read yet
    expect(picked.address()).toEqual({ clients: 'web-2,web-4,web-5' })
    expect([2, 3].map((n) => picked.has(client(n)))).toEqual([true, false])
  })
  it('picks all by the selector, those too that were not read', () => {
    const { picked } = list(10, { selector: 'env=prod', status: 'online' })
    picked.toggleAll()
    expect([picked.count.value, picked.some.value, picked.has(client(500))]).toEqual([1000, false, true])
    expect(picked.address()).toEqual({ selector: 'env=prod,status=online' })
    picked.toggleAll()
    expect(picked.count.value).toBe(0)
  })
  it('picks what it has read where no selector says the same, and hands on many by the selection', () => {
    const { picked } = list(21, { search: 'web' })
    picked.toggleAll()
    expect(picked.count.value).toBe(21)
    expect(picked.address()).toEqual({ picked: '1' })
    expect(useSelection().clients).toHaveLength(21)
  })
  it('begins anew with another filter', async () => {
    const { filter, picked } = list(10)
    picked.toggle(1)
    filter.value = { ...filter.value, status: 'offline' }
    await nextTick()
    expect(picked.count.value).toBe(0)
  })
})
