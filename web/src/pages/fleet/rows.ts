import { useQueries, useQuery } from '@tanstack/vue-query'
import { computed, shallowRef, watch, type Ref } from 'vue'
import { api, take } from '@/api/client'
import type { Client, Installation } from '@/api/types'
import { pagesOf, type FleetFilter } from '@/lib/fleet'

const pageSize = 100

function readPage(f: FleetFilter, page: number, signal: AbortSignal) {
  return take(api.GET('/api/clients', { params: { query: {
    selector: f.selector || undefined, status: f.status || undefined, search: f.search || undefined, limit: pageSize, offset: page * pageSize,
  } }, signal }))
}

/** useRows is the agents of a filter, of which pages are read as they come into sight, and what runs on those. */
export function useRows(filter: Readonly<Ref<FleetFilter>>) {
  const head = useQuery({
    queryKey: ['clients', 'page', filter, 0],
    queryFn: ({ signal }) => readPage(filter.value, 0, signal),
  })
  const total = computed(() => head.data.value?.total ?? 0)
  const visible = shallowRef<number[]>([0])
  watch(filter, () => (visible.value = [0]))
  const pages = useQueries({
    queries: computed(() => visible.value.map((page) => ({
      queryKey: ['clients', 'page', filter.value, page],
      queryFn: ({ signal }: { signal: AbortSignal }) => readPage(filter.value, page, signal),
    }))),
  })
  const byIndex = computed(() => {
    const map = new Map<number, Client>()
    pages.value.forEach((p, i) => {
      const page = visible.value[i] ?? 0
      p.data?.clients.forEach((c, j) => map.set(page * pageSize + j, c))
    })
    return map
  })
  const running = useQueries({
    queries: computed(() => pages.value.map((p) => {
      const ids = p.data?.clients.map((c) => c.client_id) ?? []
      return {
        queryKey: ['installations', 'of', ids],
        queryFn: ({ signal }: { signal: AbortSignal }) => take(api.GET('/api/release/installations', { params: { query: { client_ids: ids, limit: 1000 } }, signal })),
        enabled: ids.length > 0,
      }
    })),
  })
  const installed = computed(() => {
    const map = new Map<string, Installation[]>()
    for (const q of running.value) {
      for (const i of q.data?.installations ?? []) map.set(i.client_id, [...(map.get(i.client_id) ?? []), i])
    }
    return map
  })
  return {
    filter,
    /** The first page: whether anything could be read at all. */
    head,
    total,
    /** The agents that were read, by the number of their row. */
    byIndex,
    /** By the id of the agent. */
    installed,
    /** see says which rows are in sight: it is their pages that are read. */
    see(first: number, last: number) {
      const pages = pagesOf(first, last, pageSize, total.value)
      if (pages.join() !== visible.value.join()) visible.value = pages
    },
  }
}
export type Rows = ReturnType<typeof useRows>
