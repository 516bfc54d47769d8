import { mount } from '@vue/test-utils'
import { createPinia } from 'pinia'
import { beforeEach, describe, expect, it } from 'vitest'
import type { Preview } from '@/api/types'
import { i18n } from '@/i18n'
import TaskPreview from './TaskPreview.vue'

const global = { plugins: [i18n, createPinia()] }
beforeEach(() => (i18n.global.locale.value = 'en'))

const preview: Preview = {
  project: 'shop', version: '2.0', action: 'deploy', total: 12, warnings: ['container.image: there is no variable REGISTRY', 'one host cannot'], problems: [{ path: 'image', message: 'there is no variable REGISTRY' }],
  waves: [{ number: 0, size: 1, canary: true, sample: ['web-01'] }, { number: 1, size: 11, sample: ['web-02', 'web-03'], last: 'web-12' }],
  groups: [{ action: 'update', from: '1.0', state: 'installed', targets: 12, sample: ['web-01'], changes: [{ path: 'env.A', before: 'x', after: 'y' }] }],
  values: [
    { path: 'env.A', value: 'y', layer: 'task' },
    { path: 'image', value: '${REGISTRY}/shop', layer: 'project', variables: [{ name: 'REGISTRY', from: 'nowhere' }] },
    { path: 'password', value: '${TOKEN}', layer: 'version', variables: [{ name: 'TOKEN', from: 'environment', secret: true }] },
  ],
}
const show = (layer = '') => mount(TaskPreview, { props: { preview, soak: '10m', promote: 'manual', layer }, global })

describe('TaskPreview', () => {
  it('says who is in which wave, and what is between them', () => {
    const waves = show().get('.waves').text().replace(/\s+/g, ' ')
    expect(waves).toContain('canary1 hostup to 8.3%web-01')
    expect(waves).toContain('soak 10m')
    expect(waves).toContain('waits for a person')
    expect(waves).toContain('wave 111 hostsup to 100%web-02, web-03 … web-12')
  })
  it('tells what is wrong at its value, first, and only there', () => {
    const page = show()
    const first = page.findAll('.values > li')[0]!
    expect(first.text()).toContain('image')
    expect(first.get('.problem').text()).toBe('there is no variable REGISTRY')
    expect(page.get('.warnings').text()).toBe('one host cannot')
  })
  it('says where hosts do not run what was deployed', () => {
    const one = preview.groups[0]!
    const groups = [one, { ...one, drift: 'missing' as const }, { ...one, drift: 'version' as const, found: '0.9' }]
    const page = mount(TaskPreview, { props: { preview: { ...preview, groups }, soak: '10m', promote: 'manual', layer: '' }, global })
    const told = page.findAll('.group .what').map((g) => g.text())
    expect(told[0]).not.toMatch(/missing|found/)
    expect(told[1]).toContain('missing')
    expect(told[2]).toContain('0.9 was found there')
  })
  it('shows what comes from one layer; a variable of the environment is one', async () => {
    expect(show('task').findAll('.values > li')).toHaveLength(1)
    const page = show('environment')
    expect(page.findAll('.values > li').map((v) => v.get('.path').text())).toEqual(['password'])
    expect(page.get('.uses').text()).toBe('TOKEN of the environment · secret')
    expect(show('nonsense').findAll('.values > li')).toHaveLength(3)
    await page.findAll('.chip').find((c) => c.text().includes('project'))!.trigger('click')
    expect(page.emitted('update:layer')).toEqual([['project']])
  })
})
