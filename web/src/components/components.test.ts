import { mount } from '@vue/test-utils'
import { createPinia } from 'pinia'
import { beforeEach, describe, expect, it } from 'vitest'
import { en } from '@/i18n/en'
import { i18n } from '@/i18n'
import StateMark from '@/state/StateMark.vue'
import { gridStates, looks, tokenOf } from '@/state/tokens'
import CountLine from './CountLine.vue'
import FailureGroups from './FailureGroups.vue'
import PagedList from './PagedList.vue'

const global = { plugins: [i18n, createPinia()] }
beforeEach(() => (i18n.global.locale.value = 'en'))

describe('states', () => {
  it('have a colour and a shape of their own, and words', () => {
    const shapes = new Set(Object.values(looks).map((l) => JSON.stringify(l.shape)))
    expect(shapes.size).toBe(Object.keys(looks).length)
    for (const { state } of gridStates) expect(en.state).toHaveProperty(state)
    expect(tokenOf('what a newer server says')).toBe('unknown')
  })
  it('are told to readers of screens where there are no words', () => {
    const bare = mount(StateMark, { props: { status: 'failed', bare: true }, global })
    expect(bare.get('svg').attributes('aria-label')).toBe('failed')
    expect(mount(StateMark, { props: { status: 'failed' }, global }).text()).toBe('failed')
  })
})

describe('CountLine', () => {
  it('says numbers before words, and only those there are', () => {
    const line = mount(CountLine, { props: { counts: { total: 1500, succeeded: 1204, failed: 9, pending: 280, running: 7 } }, global })
    expect(line.text().replace(/\s+/g, ' ')).toBe('1,204 / 1,500 done7 running9 failed287 left')
  })
})

describe('PagedList', () => {
  const list = (props: object) => mount(PagedList, { props: { count: '120 releases', total: 120, page: 50, offset: 100, loaded: true, empty: false, newestFirst: true, ...props }, slots: { default: 'rows', empty: 'nothing' }, global })
  it('goes to older and newer ones, and no further', async () => {
    const last = list({})
    expect(last.text()).toContain('101–120 / 120')
    const [newer, older] = last.findAll('button')
    expect([newer!.attributes('disabled'), older!.attributes('disabled')]).toEqual([undefined, ''])
    await newer!.trigger('click')
    expect(last.emitted('update:offset')).toEqual([[50]])
  })
  it('keeps what it has while the server is away, and says what is wrong where it has nothing', () => {
    expect(list({ error: new Error('away') }).text()).toContain('rows')
    expect(list({ error: new Error('away'), loaded: false }).text()).toContain('away')
    expect(list({ empty: true }).text()).toContain('nothing')
  })
})

describe('FailureGroups', () => {
  it('never takes what a host said for HTML', () => {
    const groups = [{ state: 'failed', reason: '<img src=x onerror=alert(1)>', hosts: 3, first: 'a' }]
    const list = mount(FailureGroups, { props: { groups, total: 1 }, global })
    expect(list.find('img').exists()).toBe(false)
    expect(list.text()).toContain('<img src=x')
  })
})
