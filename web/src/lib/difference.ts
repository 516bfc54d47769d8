import { diffArrays } from 'diff'

/** A line of a difference. before and after: its number there, from 1; absent where it is not. */
export interface DiffLine {
  sign: ' ' | '+' | '-'
  text: string
  before?: number
  after?: number
}

/** Lines, or how many that are equal were left out. */
export type DiffRow = DiffLine | { skipped: number; from: number }
/** A row of two columns. */
export type SideRow = { left?: DiffLine; right?: DiffLine } | { skipped: number; from: number }

const linesOf = (text: string) => (text === '' ? [] : text.replace(/\n$/, '').split('\n'))

/** compare gives the lines of two texts, in the order of a unified difference. */
export function compare(before: string, after: string): DiffLine[] {
  const lines: DiffLine[] = []
  let b = 1
  let a = 1
  for (const part of diffArrays(linesOf(before), linesOf(after))) {
    for (const text of part.value) {
      if (part.removed) lines.push({ sign: '-', text, before: b++ })
      else if (part.added) lines.push({ sign: '+', text, after: a++ })
      else lines.push({ sign: ' ', text, before: b++, after: a++ })
    }
  }
  return lines
}

/** fold leaves out equal lines that are further than a few from any change. Infinity leaves out none. */
export function fold(lines: DiffLine[], around: number): DiffRow[] {
  const near = new Set<number>()
  lines.forEach((l, i) => {
    if (l.sign !== ' ') for (let at = Math.max(0, i - around); at <= Math.min(lines.length - 1, i + around); at++) near.add(at)
  })
  const rows: DiffRow[] = []
  for (let i = 0; i < lines.length; ) {
    if (around === Infinity || near.has(i)) {
      rows.push(lines[i++]!)
      continue
    }
    const from = i
    while (i < lines.length && !near.has(i)) i++
    // A row that says that one line is missing is no shorter than that line.
    if (i - from === 1) rows.push(lines[from]!)
    else rows.push({ skipped: i - from, from })
  }
  return rows
}

/** sideBySide puts what was removed beside what came instead. */
export function sideBySide(rows: DiffRow[]): SideRow[] {
  const out: SideRow[] = []
  for (let i = 0; i < rows.length; ) {
    const row = rows[i]!
    if ('skipped' in row) {
      out.push(row)
      i++
    } else if (row.sign === ' ') {
      out.push({ left: row, right: row })
      i++
    } else {
      const removed: DiffLine[] = []
      const added: DiffLine[] = []
      for (; i < rows.length; i++) {
        const next = rows[i]!
        if ('skipped' in next || next.sign === ' ') break
        ;(next.sign === '-' ? removed : added).push(next)
      }
      for (let n = 0; n < Math.max(removed.length, added.length); n++) out.push({ left: removed[n], right: added[n] })
    }
  }
  return out
}

/** How many lines were added and removed. */
export function changes(lines: DiffLine[]): { added: number; removed: number } {
  return { added: lines.filter((l) => l.sign === '+').length, removed: lines.filter((l) => l.sign === '-').length }
}
