import { mount } from '@vue/test-utils'
import { createPinia } from 'pinia'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { defineComponent, h, nextTick } from 'vue'
import { createMemoryHistory, createRouter } from 'vue-router'
import { emptyDraft } from '@/lib/newtask'
import { emptyWhen } from '@/lib/when'
import { useSelection } from '@/stores/selection'
import { addressOf, begun, useTyped, type Kept, type Typed } from './typed'

const many = Array.from({ length: 21 }, (_, i) => `web-${i}`)

describe('begun', () => {
  it('takes what a link says before what was kept', () => {
    const kept: Kept = { draft: { ...emptyDraft(), project: 'shop', version: '1.0', waves: '50' }, when: { ...emptyWhen(), kind: 'cron', name: 'n' } }
    const { draft, when } = begun({ version: '2.0', when: 'once', layer: 'task' }, [], kept)
    expect(draft).toEqual({ ...kept.draft, version: '2.0' })
    expect(when).toEqual({ ...kept.when, kind: 'once' })
  })
  it('takes hosts of the link, or those that were picked in the fleet', () => {
    expect(begun({ clients: 'a,b' }, many).draft).toMatchObject({ by: 'clients', clients: 'a\nb' })
    expect(begun({ picked: '1' }, many).draft).toMatchObject({ by: 'clients', clients: many.join('\n') })
    expect(begun({ picked: '1' }, []).draft).toMatchObject({ by: 'selector', clients: '' }) // nobody knows them any more
    expect(begun({}, many).draft.by).toBe('selector')
  })
})

describe('addressOf', () => {
  const said = (d: object, w: object = {}) => Object.fromEntries(Object.entries(addressOf({ ...emptyDraft(), ...d }, { ...emptyWhen(), ...w })).filter(([, v]) => v))
  it('leaves out what is as it is at first, or does not count', () => {
    expect(said({})).toEqual({})
    expect(said({ project: 'shop', version: '2.0', selector: ' env=prod ', clients: 'a' }, { kind: 'cron' })).toEqual({ project: 'shop', version: '2.0', selector: 'env=prod', when: 'cron' })
    expect(said({ project: 'shop', version: '2.0', action: 'uninstall', by: 'clients', selector: '*', clients: 'a b' })).toEqual({ project: 'shop', action: 'uninstall', clients: 'a,b' })
  })
  it('has no more ids than an address should', () => {
    expect(said({ by: 'clients', clients: many.join('\n') })).toEqual({ picked: '1' })
    expect(said({ by: 'clients', clients: many.slice(1).join('\n') })).toEqual({ clients: many.slice(1).join(',') })
  })
  it('comes back', () => {
    const { draft, when } = begun(said({ project: 'shop', version: '2.0', environment: 'prod', selector: 'a=b' }, { kind: 'once' }), [])
    expect(draft).toEqual({ ...emptyDraft(), project: 'shop', version: '2.0', environment: 'prod', selector: 'a=b' })
    expect(when.kind).toBe('once')
  })
})

describe('useTyped', () => {
  beforeEach(() => {
    vi.useFakeTimers()
    history.replaceState({}, '')
  })
  afterEach(() => void vi.useRealTimers())

  async function page(address = '/releases/new') {
    const router = createRouter({ history: createMemoryHistory(), routes: [{ path: '/releases/new', name: 'newRelease', component: {} }, { path: '/', component: {} }] })
    await router.push(address)
    let typed!: Typed
    const wrapper = mount(defineComponent({
      setup() {
        typed = useTyped()
        return () => h('form')
      },
    }), { global: { plugins: [router, createPinia()] } })
    const rest = async () => {
      await nextTick()
      await vi.advanceTimersByTimeAsync(250)
    }
    return { router, typed, wrapper, rest }
  }
  const kept = () => history.state.newRelease as Kept | undefined

  it('keeps all of it over a reload, and says in the address what a link should have', async () => {
    const first = await page('/releases/new?layer=task')
    Object.assign(first.typed.draft, { project: 'shop', version: '2.0', waves: '50, 100', by: 'clients', clients: many.join(' ') })
    expect(kept()).toBeUndefined() // it is still being typed
    await first.rest()
    expect(first.router.currentRoute.value.query).toEqual({ layer: 'task', project: 'shop', version: '2.0', picked: '1' })
    expect(useSelection().clients).toEqual(many)
    first.wrapper.unmount()
    const second = await page(first.router.currentRoute.value.fullPath)
    expect(second.typed.draft).toMatchObject({ project: 'shop', version: '2.0', waves: '50, 100' })
  })
  it('keeps the key of a request until that is answered', async () => {
    const { typed, wrapper } = await page()
    const key = typed.keyOf('{}')
    expect(kept()?.key?.value).toBe(key)
    expect(typed.keyOf('{}')).toBe(key)
    wrapper.unmount()
    const again = await page() // the page was loaded again meanwhile
    expect(again.typed.keyOf('{}')).toBe(key)
    again.typed.answered()
    expect(kept()?.key).toBeUndefined()
    expect(again.typed.keyOf('{}')).not.toBe(key)
  })
  it('writes nothing once the page is left', async () => {
    const { typed, router, rest } = await page()
    typed.draft.project = 'shop'
    await nextTick()
    typed.hush()
    await rest()
    expect([kept(), router.currentRoute.value.query]).toEqual([undefined, {}])
  })
  it('takes a schedule that is edited, but not over what was typed of it before a reload', async () => {
    const schedule = { name: 'nightly', project: 'shop', cron: '@daily', timezone: 'UTC', task: { project: 'shop-id', version: '1.0', action: 'deploy' } } as never
    const first = await page()
    first.typed.edit(schedule)
    expect(first.typed.draft).toMatchObject({ project: 'shop', version: '1.0' })
    expect(first.typed.when).toMatchObject({ kind: 'cron', name: 'nightly', cron: '@daily' })
    first.typed.draft.version = '2.0'
    await first.rest()
    first.wrapper.unmount()
    const second = await page()
    second.typed.edit(schedule)
    expect(second.typed.draft.version).toBe('2.0')
  })
})
