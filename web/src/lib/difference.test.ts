import { describe, expect, it } from 'vitest'
import { changes, compare, fold, sideBySide } from './difference'
import { nextVersion } from './versions'

const text = (...lines: string[]) => lines.join('\n') + '\n'

describe('a difference', () => {
  it('numbers lines on both sides', () => {
    const lines = compare(text('a', 'b', 'c'), text('a', 'x', 'y', 'c'))
    expect(lines.map((l) => `${l.before ?? ''}${l.sign}${l.after ?? ''} ${l.text}`)).toEqual(['1 1 a', '2- b', '+2 x', '+3 y', '3 4 c'])
    expect(changes(lines)).toEqual({ added: 2, removed: 1 })
  })
  it('of equal texts, and of nothing, has no change', () => {
    expect(changes(compare(text('a'), text('a')))).toEqual({ added: 0, removed: 0 })
    expect(compare('', '')).toEqual([])
    expect(compare('', text('a'))).toEqual([{ sign: '+', text: 'a', after: 1 }])
  })
  it('leaves out what is far from a change', () => {
    const before = Array.from({ length: 20 }, (_, i) => `line ${i}`)
    const after = before.with(10, 'other')
    const lines = compare(text(...before), text(...after))
    expect(fold(lines, 2).map((r) => ('skipped' in r ? r.skipped : r.sign))).toEqual([8, ' ', ' ', '-', '+', ' ', ' ', 7])
    expect(fold(lines, Infinity)).toEqual(lines)
    expect(fold(compare(text('a', 'b'), text('a', 'c')), 0).map((r) => ('skipped' in r ? r.skipped : r.sign))).toEqual([' ', '-', '+'])
  })
  it('side by side puts what came beside what went', () => {
    const rows = sideBySide(compare(text('a', 'b', 'c'), text('a', 'x', 'y', 'c')))
    expect(rows.map((r) => ('skipped' in r ? '' : `${r.left?.text ?? '-'}|${r.right?.text ?? '-'}`))).toEqual(['a|a', 'b|x', '-|y', 'c|c'])
  })
})

describe('the next version', () => {
  it('counts the last number on', () => {
    expect(['1.0', '2.9', 'v1.2.3', '1.2.3-rc9', '2026.09', 'stable', '1.0-beta'].map(nextVersion)).toEqual(['1.1', '2.10', 'v1.2.4', '1.2.3-rc10', '2026.10', '', '1.1-beta'])
  })
})
