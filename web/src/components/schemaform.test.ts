import { QueryClient, VueQueryPlugin } from '@tanstack/vue-query'
import { mount } from '@vue/test-utils'
import { beforeEach, describe, expect, it } from 'vitest'
import { nextTick } from 'vue'
import { i18n } from '@/i18n'
import specs from '@/api/specs.json'
import type { FieldError, Layer, SpecType } from '@/lib/schema'
import SchemaForm from './SchemaForm.vue'

beforeEach(() => (i18n.global.locale.value = 'en'))

function form(type: SpecType, value: Record<string, unknown>, errors: FieldError[] = [], layer: Layer = 'version') {
  const queries = new QueryClient()
  const fields = Object.keys(specs[type === 'script' ? 'ScriptSpec' : 'ContainerSpec'].properties)
  queries.setQueryData(['rules', type], fields.map((path) => ({ path, layers: path === 'user' ? ['project'] : ['project', 'version'], merge: 'replace', expand: true, group: path < 'm' ? 'first' : 'last', doc: '' })))
  const wrapper = mount(SchemaForm, { props: { type, layer, modelValue: value, errors, 'onUpdate:modelValue': (v: Record<string, unknown>) => wrapper.setProps({ modelValue: v }) }, global: { plugins: [i18n, [VueQueryPlugin, { queryClient: queries }]] } })
  return wrapper
}
const model = (w: ReturnType<typeof form>) => w.props('modelValue')

describe('SchemaForm', () => {
  it('sets text, and leaves out what is emptied', async () => {
    const w = form('script', { keep_releases: 4 })
    await w.get('[data-field="install"] textarea').setValue('echo hi')
    expect(model(w)).toEqual({ keep_releases: 4, install: 'echo hi' })
    await w.get('[data-field="install"] textarea').setValue('')
    expect(model(w)).toEqual({ keep_releases: 4 })
    await w.get('[data-field="keep_releases"] .clear').trigger('click')
    expect(model(w)).toEqual({})
  })
  it('has only what the layer may set', () => {
    expect(form('script', {}).find('[data-field="user"]').exists()).toBe(false)
    expect(form('script', {}, [], 'project').find('[data-field="user"]').exists()).toBe(true)
  })
  it('keeps a row of a map while its name is typed', async () => {
    const w = form('script', { env: { A: '1' } })
    const env = w.get('[data-field="env"]')
    await env.get('button.el-button').trigger('click')
    expect(env.findAll('.item').length).toBe(2)
    expect(model(w)).toEqual({ env: { A: '1' } })
    await env.findAll('.key input')[1]!.setValue('A')
    expect(env.text()).toContain('There twice: A')
    await env.findAll('.key input')[1]!.setValue('B')
    await env.findAll('.value input')[1]!.setValue('2')
    expect(model(w)).toEqual({ env: { A: '1', B: '2' } })
    await env.findAll('.mini')[0]!.trigger('click')
    expect(model(w)).toEqual({ env: { B: '2' } })
    await env.findAll('.mini')[0]!.trigger('click')
    expect(model(w)).toEqual({})
  })
  it('follows values that come from elsewhere', async () => {
    const w = form('script', { env: { A: '1' } })
    await w.setProps({ modelValue: { env: { B: '2', C: '' } } })
    expect(w.findAll('[data-field="env"] .key input').map((i) => (i.element as HTMLInputElement).value)).toEqual(['B', 'C'])
  })
  it('edits lists of objects, and shows each error at its field', async () => {
    const w = form('script', { artifacts: [{ name: 'a' }, { name: 'b' }] }, [
      { location: 'body.script.artifacts[1].sha256', message: 'is required' },
      { location: 'body.script.user', message: 'a version cannot set it' },
    ])
    expect(w.findAll('[data-field="artifacts 2.sha256"] .problem').map((e) => e.text())).toEqual(['is required'])
    expect(w.findAll('[data-field="artifacts 1.sha256"] .problem')).toEqual([])
    expect(w.text()).toContain('user: a version cannot set it')
    await w.get('[data-field="artifacts 2.name"] input').setValue('c')
    expect(model(w)).toEqual({ artifacts: [{ name: 'a' }, { name: 'c' }] })
    await w.get('[data-field="artifacts"] button[aria-label="artifacts: Move 2 up"]').trigger('click')
    expect(model(w)).toEqual({ artifacts: [{ name: 'c' }, { name: 'a' }] })
    await w.get('[data-field="artifacts"] button[aria-label="artifacts: Remove 1"]').trigger('click')
    expect(model(w)).toEqual({ artifacts: [{ name: 'a' }] })
  })
  it('opens a group that has an error', async () => {
    const w = form('container', {})
    expect(w.find('[data-field="volumes"]').exists()).toBe(false)
    await w.setProps({ errors: [{ location: 'body.container.volumes', message: 'wrong' }] })
    expect(w.get('[data-field="volumes"]').text()).toContain('wrong')
  })
  it('finds fields in groups that are folded', async () => {
    const w = form('container', {})
    await w.get('.find input').setValue('propagation')
    await nextTick()
    expect(w.findAll('.fields > .field').map((f) => f.attributes('data-field'))).toEqual(['volumes'])
  })
  it('labels every input of a field', () => {
    const w = form('container', { volumes: [{ target: '/x' }], ulimits: { nofile: { soft: 1 } }, resources: {}, command: ['a'], privileged: true })
    for (const i of w.findAll('.fields input, .fields textarea')) expect(i.attributes('aria-label') ?? w.find(`label[for="${i.attributes('id')}"]`).exists(), i.html()).toBeTruthy()
  })
})
