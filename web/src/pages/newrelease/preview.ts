import { keepPreviousData, useQuery } from '@tanstack/vue-query'
import { computed, type Ref } from 'vue'
import { api, take } from '@/api/client'
import { taskOf, wavesOf, type Draft } from '@/lib/newtask'
import { useSettled } from '@/lib/settled'

/** usePreview is the task that a draft asks for, and what the server says that it would do. type: of the project; total: how many hosts are picked. */
export function usePreview(draft: Draft, type: Readonly<Ref<string | undefined>>, total: Readonly<Ref<number>>) {
  const task = computed(() => taskOf(draft, type.value, total.value))
  const described = computed(() => draft.project !== '' && (draft.action === 'uninstall' || draft.version !== '') && wavesOf(draft.waves) !== undefined)
  const asked = useSettled(task, 300)
  const preview = useQuery({
    queryKey: ['taskPreview', asked],
    queryFn: ({ signal }) => take(api.POST('/api/release/preview', { body: asked.value, signal })),
    enabled: computed(() => described.value && asked.value.project !== '' && (asked.value.action === 'uninstall' || !!asked.value.version)),
    retry: false, placeholderData: keepPreviousData,
  })
  return {
    task,
    /** Whether enough was said to ask what it would do. */
    described,
    shown: computed(() => (described.value && preview.data.value?.project === draft.project ? preview.data.value : undefined)),
    error: computed(() => (described.value ? (preview.error.value ?? undefined) : undefined)),
    busy: preview.isFetching,
    again: () => void preview.refetch(),
  }
}
