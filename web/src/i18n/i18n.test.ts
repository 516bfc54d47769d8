import { describe, expect, it } from 'vitest'
import { i18n } from '.'
import { en } from './en'
import { zh } from './zh'

const leaves = (o: object, at = ''): string[] => Object.entries(o).flatMap(([k, v]) => (typeof v === 'object' ? leaves(v as object, `${at}${k}.`) : [`${at}${k}`]))
const keys = leaves(en)
const groupOf = (key: string) => key.slice(0, Math.max(0, key.lastIndexOf('.')))

describe('keys', () => {
  const sources = Object.values(import.meta.glob<string>(['../**/*.{ts,vue}', '!../i18n/**', '!../**/*.test.ts', '!../**/*.d.ts'], { query: '?raw', import: 'default', eager: true }))
  const all = (pattern: RegExp) => [...new Set(sources.flatMap((text) => [...text.matchAll(pattern)].map((m) => m[1]!)))]
  const sections = Object.keys(en)
  const inSection = (text: string) => sections.includes(text.split('.')[0]!)
  /** Texts that are keys, or look like it. */
  const texts = all(/'([a-z]\w*(?:\.\w+)*)'/g)
  /** Groups of which one key is chosen by what the server says: `state.${status}` is of state. */
  const groups = all(/`([a-z]\w*(?:\.\w+)*)\.\$\{[^}`]*\}/g).filter(inSection)
  /** Types of commands, and names of what the browser keeps. */
  const others = ['container.list', 'container.logs', 'system.info', 'system.collect_info', 'fleet.filters', 'nav.narrow']
  /** Sections that are nothing but words to choose from. A group in another section is one of its own, or all of the section would seem to be used. */
  const vocabularies = ['act', 'installation', 'phase', 'state', 'step']

  it('are all used', () => {
    expect(sources.length).toBeGreaterThan(50)
    expect(keys.filter((key) => !texts.includes(key) && !groups.includes(groupOf(key)))).toEqual([])
  })
  it('are all there', () => {
    expect(texts.filter((text) => text.includes('.') && inSection(text) && !keys.includes(text) && !others.includes(text))).toEqual([])
    expect(all(/\bt\('([^']*)'/g).filter((key) => !keys.includes(key))).toEqual([])
    expect(groups.filter((group) => !keys.some((key) => groupOf(key) === group))).toEqual([])
  })
  it('are chosen from groups of their own', () => {
    expect(groups.filter((group) => !group.includes('.') && !vocabularies.includes(group))).toEqual([])
    expect(all(/\bt\(`([^`]*)`/g).filter((key) => !/^[a-z]\w*(\.\w+)*\.\$\{.*\}$/.test(key))).toEqual([]) // no halves of words
  })
})

describe('languages', () => {
  const names = (text: string) => [...new Set([...text.matchAll(/\{(\w+)\}/g)].map((m) => m[1]))].sort()
  const at = (o: object, key: string) => key.split('.').reduce<unknown>((v, k) => (v as Record<string, unknown>)[k], o) as string
  it('are messages that can be compiled', () => {
    const say = (i18n.global as unknown as { t: (key: string, named: object) => string }).t
    for (const locale of ['en', 'zh'] as const) {
      i18n.global.locale.value = locale
      for (const key of keys) expect(() => say(key, { n: 1 }), key).not.toThrow()
    }
    i18n.global.locale.value = 'en'
    expect(say('newRelease.cronHint', {})).toBe('Minute hour day month weekday, or @hourly, @daily, @every 90m')
  })
  it('say the same things', () => {
    expect(leaves(zh)).toEqual(keys)
    for (const key of keys) expect({ key, names: names(at(zh, key)) }).toEqual({ key, names: names(at(en, key)) })
  })
})
