import { nextTick, watch, type Ref, type WatchSource } from 'vue'

/** useFirstError brings the first of what was not accepted into sight, where a form is longer than the window. */
export function useFirstError(form: Readonly<Ref<HTMLElement | null>>, errors: WatchSource<unknown[]>): void {
  watch(errors, async (now) => {
    if (now.length === 0) return
    await nextTick()
    await nextTick() // A group may open for it.
    form.value?.querySelector('[role="alert"]')?.scrollIntoView({ block: 'center' })
  })
}
