import { computed, onBeforeUnmount, onMounted, ref, type Ref } from 'vue'

export const rowHeight = 20

/** useWindow is the part of many rows of one height that is in sight. It follows their end until someone scrolls up. scroller: what they scroll in; at: the row to show first, by its seq. */
export function useWindow<T extends { seq: number }>(rows: Readonly<Ref<T[]>>, scroller: Readonly<Ref<HTMLElement | null>>, at?: number) {
  const top = ref(0)
  const height = ref(300)
  const following = ref(true)
  const fresh = ref(0)
  let target = at

  const first = computed(() => Math.max(0, Math.floor(top.value / rowHeight) - 10))
  const shown = computed(() => rows.value.slice(first.value, first.value + Math.ceil(height.value / rowHeight) + 20))
  function toEnd() {
    if (following.value && scroller.value) scroller.value.scrollTop = scroller.value.scrollHeight
  }
  function toTarget(seq: number) {
    const i = rows.value.findIndex((l) => l.seq >= seq)
    if (i < 0 || !scroller.value) return
    target = undefined
    following.value = false
    scroller.value.scrollTop = Math.max(0, i * rowHeight - height.value / 3)
  }
  const sizes = new ResizeObserver(([entry]) => {
    height.value = entry!.contentRect.height
    toEnd()
  })
  onMounted(() => sizes.observe(scroller.value!))
  onBeforeUnmount(() => sizes.disconnect())

  return {
    /** The first row that is there, and those from it on. */
    first,
    shown,
    following,
    /** How many rows came since it follows no more. */
    fresh,
    follow(on: boolean) {
      following.value = on
      if (on) fresh.value = 0
      toEnd()
    },
    onScroll() {
      const el = scroller.value!
      const up = el.scrollTop < top.value - 1
      top.value = el.scrollTop
      const bottom = el.scrollHeight - el.scrollTop - el.clientHeight < rowHeight
      if (bottom) {
        following.value = true
        fresh.value = 0
      } else if (up) following.value = false
    },
    /** came says that rows were added at the end, and that some are gone from the start: what one reads stays where it is. */
    came(added: number, gone: number) {
      const el = scroller.value
      if (!el) return
      if (target !== undefined) toTarget(target)
      else if (following.value) toEnd()
      else {
        fresh.value += added
        if (gone > 0) el.scrollTop -= gone * rowHeight
      }
    },
    /** anew says that the rows are others; of another list, where none of them can be new. */
    anew(other: boolean) {
      if (other) fresh.value = 0
      toEnd()
    },
  }
}
