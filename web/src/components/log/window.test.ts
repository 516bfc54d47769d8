import { mount } from '@vue/test-utils'
import { describe, expect, it } from 'vitest'
import { defineComponent, h, shallowRef, useTemplateRef } from 'vue'
import { rowHeight, useWindow } from './window'

const rows = (n: number, from = 0) => Array.from({ length: n }, (_, i) => ({ seq: from + i }))

/** A window of 300 px over rows, and what happens to it. */
function open(n: number, at?: number) {
  const list = shallowRef(rows(n))
  let view!: ReturnType<typeof useWindow<{ seq: number }>>
  const wrapper = mount(defineComponent({
    setup() {
      view = useWindow(list, useTemplateRef<HTMLElement>('scroller'), at)
      return () => h('div', { ref: 'scroller', onScroll: view.onScroll })
    },
  }))
  const el = wrapper.element as HTMLElement
  Object.defineProperty(el, 'scrollHeight', { get: () => list.value.length * rowHeight })
  Object.defineProperty(el, 'clientHeight', { value: 300 })
  const scroll = (top: number) => {
    el.scrollTop = top
    view.onScroll()
  }
  const come = (added: number, gone = 0) => {
    list.value = rows(list.value.length + added - gone, list.value[gone]?.seq)
    view.came(added, gone)
  }
  return { view, el, scroll, come }
}

describe('useWindow', () => {
  it('follows the end until someone scrolls up, and counts what is new from then on', () => {
    const { view, el, scroll, come } = open(100)
    come(10)
    expect(el.scrollTop).toBe(110 * rowHeight)
    scroll(2000 - 300 - 100)
    scroll(1000)
    come(5)
    come(7)
    expect([view.following.value, view.fresh.value, el.scrollTop]).toEqual([false, 12, 1000])
    view.follow(true)
    expect([view.fresh.value, el.scrollTop]).toEqual([0, 122 * rowHeight])
  })
  it('stays at what one reads while the oldest rows go', () => {
    const { view, el, scroll, come } = open(100)
    scroll(1500)
    scroll(1000)
    come(4, 10)
    expect(el.scrollTop).toBe(1000 - 10 * rowHeight)
    expect(view.fresh.value).toBe(4)
    view.anew(false)
    expect([view.fresh.value, el.scrollTop]).toEqual([4, 800]) // another filter is no reason to move
    view.anew(true)
    expect(view.fresh.value).toBe(0)
  })
  it('follows again at the end', () => {
    const { view, scroll } = open(100)
    scroll(1500)
    scroll(1000)
    expect(view.following.value).toBe(false)
    scroll(100 * rowHeight - 300)
    expect(view.following.value).toBe(true)
  })
  it('goes to a row once it is there, and stays', () => {
    const { view, el, come } = open(0, 55)
    come(20)
    expect(el.scrollTop).toBe(0)
    come(80)
    expect([view.following.value, el.scrollTop]).toEqual([false, 55 * rowHeight - 100])
    come(10)
    expect(el.scrollTop).toBe(55 * rowHeight - 100)
  })
  it('has only the rows around what is in sight', () => {
    const { view, scroll } = open(1000)
    scroll(10_000)
    expect(view.first.value).toBe(490)
    expect(view.shown.value).toHaveLength(35)
  })
})
