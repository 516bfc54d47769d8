import { useQuery } from '@tanstack/vue-query'
import { computed } from 'vue'
import { api, ApiError, take } from '@/api/client'
import { useSettled } from '@/lib/settled'
import { firesOf, type When } from '@/lib/when'

/** useFires is when something would fire, as the server reckons it while one types. */
export function useFires(when: When) {
  const asked = useSettled(computed(() => firesOf(when)), 200)
  const some = computed(() => Boolean(asked.value.at || asked.value.cron))
  const next = useQuery({
    queryKey: ['schedules', 'preview', asked],
    queryFn: ({ signal }) => take(api.POST('/api/release/schedules/preview', { body: asked.value, signal })),
    enabled: computed(() => when.kind !== 'now' && some.value), retry: false,
  })
  const refusal = computed(() => (next.error.value instanceof ApiError && some.value ? next.error.value : undefined))
  return {
    times: computed(() => (some.value && !refusal.value ? next.data.value : undefined)),
    /** Why it would never fire. */
    refusal,
  }
}
