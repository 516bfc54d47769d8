import { mount } from '@vue/test-utils'
import { beforeEach, describe, expect, it } from 'vitest'
import { i18n } from '@/i18n'
import DiffView from './DiffView.vue'
import TabBar from './TabBar.vue'

beforeEach(() => (i18n.global.locale.value = 'en'))
const global = { plugins: [i18n] }

describe('DiffView', () => {
  const before = 'a\nb\nc\n'
  const after = 'a\n<b>x</b>\nc\n'
  it('says what changed by signs and in words, not by colour alone', () => {
    for (const side of [false, true]) {
      const w = mount(DiffView, { props: { before, after, beforeLabel: '1.0', afterLabel: '2.0', side }, global })
      expect(w.findAll('.sign .unseen').map((s) => s.text())).toEqual(['removed', 'added'])
      expect(w.findAll('.sign [aria-hidden]').map((s) => s.text()).filter((s) => s.trim() !== '')).toEqual(['−', '+'])
      expect(w.find('b').exists()).toBe(false) // text, never HTML
      expect(w.text()).toContain('<b>x</b>')
    }
  })
  it('says so where there is no difference', () => {
    expect(mount(DiffView, { props: { before, after: before, beforeLabel: '1.0', afterLabel: '2.0' }, global }).text()).toContain('They say the same.')
  })
})

describe('TabBar', () => {
  it('is gone through with arrow keys, and has one stop for Tab', async () => {
    const w = mount(TabBar, { props: { tabs: ['a', 'b', 'c'].map((key) => ({ key, label: key })), active: 'a', label: 'Parts' }, global })
    expect(w.findAll('[tabindex="0"]').length).toBe(1)
    await w.get('[role=tablist]').trigger('keydown', { key: 'ArrowLeft' })
    await w.get('[role=tablist]').trigger('keydown', { key: 'End' })
    await w.get('[role=tablist]').trigger('keydown', { key: 'x' })
    expect(w.emitted('pick')).toEqual([['c'], ['c']])
  })
})
