import { useMutation, useQueryClient } from '@tanstack/vue-query'
import { computed, nextTick, watch, type ComputedRef, type Ref, type WatchSource } from 'vue'
import { ApiError, isStatus } from '@/api/client'
import { at } from './schema'

/** useFirstError brings the first of what was not accepted into sight, where a form is longer than the window. */
export function useFirstError(form: Readonly<Ref<HTMLElement | null>>, errors: WatchSource<unknown[]>): void {
  watch(errors, async (now) => {
    if (now.length === 0) return
    await nextTick()
    await nextTick() // A group may open for it.
    form.value?.querySelector('[role="alert"]')?.scrollIntoView({ block: 'center' })
  })
}

/** useSaving sends what a form holds, and sorts what the server says against it. */
export function useSaving<T>(form: {
  send: () => Promise<T>
  done: (answer: T) => unknown
  /** Of the queries that are read again where someone else was faster; without it nothing is. */
  key?: string
}) {
  const queries = useQueryClient()
  const save = useMutation({
    mutationFn: form.send,
    onSuccess: form.done,
    onError: (e) => {
      if (form.key && isStatus(e, 412)) void queries.invalidateQueries({ queryKey: [form.key] })
    },
  })
  const errors = computed(() => (save.error.value instanceof ApiError ? save.error.value.fields : []))
  /** Someone else changed it since it was read (412). */
  const refused = computed(() => isStatus(save.error.value, 412))
  return {
    save,
    refused,
    /** What is wrong with which field. */
    errors,
    /** What is wrong with a field of the request's body; '' if nothing. */
    wrong: (field: string) => at(errors.value, field),
    /** What went wrong names no field. */
    elsewhere: computed(() => save.error.value !== null && !refused.value && errors.value.length === 0),
  }
}

interface Revised {
  revision: number
}

/** useStale says whether what a form began with has been changed since by someone else; not, where there was nothing. */
export function useStale(base: Readonly<Ref<Revised | undefined>>, current: () => Revised | undefined): ComputedRef<boolean> {
  return computed(() => {
    const now = current()
    return base.value !== undefined && now !== undefined && base.value.revision !== now.revision
  })
}
