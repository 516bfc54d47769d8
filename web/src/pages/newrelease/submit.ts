import { useMutation, useQueryClient } from '@tanstack/vue-query'
import { computed, watch, type Ref } from 'vue'
import { useRouter } from 'vue-router'
import { api, take } from '@/api/client'
import type { NewTask, Schedule } from '@/api/types'
import { scheduleOf } from '@/lib/when'
import type { Typed } from './typed'

/** useSubmit starts the release, or makes or replaces the schedule, and leads to it. edited: the schedule that is replaced; taken is called as soon as the server took it. */
export function useSubmit(typed: Typed, edited: Readonly<Ref<Schedule | undefined>>, taken: () => void) {
  const router = useRouter()
  const queries = useQueryClient()
  const { draft, when } = typed
  const start = useMutation({
    mutationFn: (task: NewTask) => take(api.POST('/api/release/tasks', { params: { header: { 'Idempotency-Key': typed.keyOf(JSON.stringify(task)) } }, body: task })),
    onSuccess: (made) => {
      typed.answered()
      taken()
      void router.push({ name: 'release', params: { id: made.id } })
    },
  })
  const save = useMutation({
    mutationFn: (task: NewTask) => {
      const body = scheduleOf(when, task)
      const s = edited.value
      if (s) return take(api.PUT('/api/release/schedules/{schedule}', { params: { path: { schedule: s.id } }, body: { ...body, paused: s.paused, revision: s.revision } }))
      return take(api.POST('/api/release/schedules', { body }))
    },
    onSuccess: (made) => {
      typed.hush()
      taken()
      void queries.invalidateQueries({ queryKey: ['schedules'] })
      void router.push({ name: 'schedule', params: { id: made.id } })
    },
  })
  watch([draft, when], () => {
    start.reset()
    save.reset()
  }, { deep: true })
  const does = computed(() => (when.kind === 'now' ? start : save))
  return {
    submit: (task: NewTask) => does.value.mutate(task),
    busy: computed(() => does.value.isPending.value),
    /** Why it was not taken. */
    error: computed(() => does.value.error.value ?? undefined),
  }
}
