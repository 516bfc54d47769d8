import { computed, type WritableComputedRef } from 'vue'
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
