import { computed, type ComputedRef, type WritableComputedRef } from 'vue'
import { useRoute, useRouter } from 'vue-router'

/** A part of the address as a value: what is at its default is left out. */
export function useAddress(name: string, initial = '', options: { push?: boolean } = {}): WritableComputedRef<string> {
  const route = useRoute()
  const router = useRouter()
  return computed({
    get: () => {
      const value = route.query[name]
      return typeof value === 'string' ? value : initial
    },
    set: (value) => {
      const query = { ...router.currentRoute.value.query }
      if (value === initial) delete query[name]
      else query[name] = value
      const to = { query, hash: route.hash }
      void (options.push ? router.push(to) : router.replace(to))
    },
  })
}

/** useOffset gives the row that a page of a list begins with, counted from 0, as the address has it in from. */
export function useOffset(): WritableComputedRef<number> {
  const from = useAddress('from', '0', { push: true })
  return computed({ get: () => Number(from.value) || 0, set: (n) => (from.value = String(n)) })
}

/** The parts of the address that a page reads, and one change of several of them. */
export function useParts(): { part: (name: string) => ComputedRef<string>; go: (parts: Record<string, string | number | undefined>) => void } {
  const route = useRoute()
  const router = useRouter()
  return {
    part: (name) => computed(() => (typeof route.query[name] === 'string' ? (route.query[name] as string) : '')),
    go(parts) {
      const query = { ...route.query } as Record<string, string>
      for (const [name, value] of Object.entries(parts)) {
        if (value === undefined || value === '') delete query[name]
        else query[name] = String(value)
      }
      void router.replace({ query })
    },
  }
}
