import { onScopeDispose, shallowRef, watch, type Ref, type ShallowRef } from 'vue'

/** useSettled gives a value as it was when it last stood still for so many ms: what the server is asked while someone types. */
export function useSettled<T>(value: Readonly<Ref<T>>, ms: number): Readonly<ShallowRef<T>> {
  const settled = shallowRef(value.value) as ShallowRef<T>
  let timer: ReturnType<typeof setTimeout> | undefined
  watch(value, (v) => {
    clearTimeout(timer)
    timer = setTimeout(() => (settled.value = v), ms)
  })
  onScopeDispose(() => clearTimeout(timer))
  return settled
}
