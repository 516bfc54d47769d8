import { computed, ref, watch, type Ref } from 'vue'
import type { Client } from '@/api/types'
import { selectorOf, type FleetFilter } from '@/lib/fleet'
import { few, useSelection } from '@/stores/selection'

/** usePicked is which agents are picked: some, or all that the filter shows, whether they were read or not. byIndex: those that were. */
export function usePicked(filter: Readonly<Ref<FleetFilter>>, total: Readonly<Ref<number>>, byIndex: Readonly<Ref<Map<number, Client>>>) {
  const selection = useSelection()
  const ids = ref(new Set<string>())
  const all = ref(false)
  const selector = computed(() => selectorOf(filter.value))
  let last = -1
  function clear() {
    ids.value = new Set()
    all.value = false
  }
  watch(filter, clear)
  return {
    count: computed(() => (all.value ? total.value : ids.value.size)),
    /** Some are picked by themselves, and not all there are. */
    some: computed(() => ids.value.size > 0),
    has: (c: Client) => all.value || ids.value.has(c.client_id),
    /** toggle picks a row, or does so no longer; with the shift key, all from the last one to it. */
    toggle(index: number, e?: MouseEvent) {
      const c = byIndex.value.get(index)
      if (!c) return
      all.value = false
      const next = new Set(ids.value)
      const on = !next.has(c.client_id)
      const [from, to] = e?.shiftKey && last >= 0 ? [Math.min(last, index), Math.max(last, index)] : [index, index]
      for (let i = from; i <= to; i++) {
        const id = byIndex.value.get(i)?.client_id
        if (id && on) next.add(id)
        else if (id) next.delete(id)
      }
      last = index
      ids.value = next
    },
    /** toggleAll picks all that the filter shows, where a selector can say them, or else those that were read. */
    toggleAll() {
      if (ids.value.size > 0 || all.value) clear()
      else if (selector.value !== undefined) all.value = true
      else ids.value = new Set([...byIndex.value.values()].map((c) => c.client_id))
    },
    /** address gives the parts of an address that hand them on to another page. */
    address(): Record<string, string> {
      if (all.value) return { selector: selector.value! }
      const list = [...ids.value].sort()
      selection.clients = list
      return list.length <= few ? { clients: list.join(',') } : { picked: '1' }
    },
  }
}
export type Picked = ReturnType<typeof usePicked>
