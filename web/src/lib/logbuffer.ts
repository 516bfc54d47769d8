import type { LogLine } from '@/api/types'
import { plain } from './ansi'

/** A line of a log, as it is shown. */
export interface Line {
  /** Rises by one, and stays with the line. */
  no: number
  seq: number
  client: string
  stream: 'stdout' | 'stderr' | 'system' | 'gap'
  time: number
  text: string
}

/** How many lines are kept in the page; the server keeps the rest. */
export const maxLines = 100_000
const longestLine = 20_000

/** Makes lines of what hosts printed, which comes in pieces: often a line, sometimes several or a part of one. */
export class LogBuffer {
  /** Complete ones, the oldest first. Not reactive: there may be a thousand new ones a second. */
  lines: Line[] = []
  /** How many lines were let go of. */
  dropped = 0
  lastSeq = 0
  private next = 1
  private readonly open = new Map<string, Line>()

  constructor(private readonly max = maxLines) {}

  /** add gives how many lines it added. What was there already is passed over. */
  add(record: LogLine): number {
    if (record.seq <= this.lastSeq) return 0
    this.lastSeq = record.seq
    const key = `${record.client_id}\n${record.step ?? ''}\n${record.stream}`
    const text = record.text ?? decode(record.data_base64 ?? '')
    const before = this.lines.length
    let from = 0
    for (;;) {
      const end = text.indexOf('\n', from)
      const piece = end < 0 ? text.slice(from) : text.slice(from, text[end - 1] === '\r' ? end - 1 : end)
      if (end < 0 && piece === '') break
      let line = this.open.get(key)
      if (line) line.text = (line.text + piece).slice(0, longestLine)
      else {
        line = { no: this.next++, seq: record.seq, client: record.client_id, stream: record.stream, time: Date.parse(record.time), text: piece.slice(0, longestLine) }
        // A part of a line is shown at once, where it began.
        this.lines.push(line)
      }
      if (end < 0) {
        this.open.set(key, line)
        break
      }
      this.open.delete(key)
      from = end + 1
    }
    const added = this.lines.length - before
    this.trim()
    return added
  }

  /** gap says that a piece is no longer kept. */
  gap(from: number, to: number): void {
    this.lastSeq = Math.max(this.lastSeq, to)
    this.lines.push({ no: this.next++, seq: to, client: '', stream: 'gap', time: 0, text: `${from}–${to}` })
    this.trim()
  }

  private trim(): void {
    // A tenth at a time, so that it is no work for each line.
    if (this.lines.length <= this.max * 1.1) return
    const over = this.lines.length - this.max
    this.lines = this.lines.slice(over)
    this.dropped += over
  }
}

function decode(base64: string): string {
  return new TextDecoder('utf-8').decode(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)))
}

export interface LineFilter {
  search: string
  stream: '' | 'stdout' | 'stderr'
  client: string
}

/** Says which lines a filter picks: part of the text or of the host's id, in either case. */
export function matcher(f: LineFilter): ((line: Line) => boolean) | undefined {
  const search = f.search.trim().toLowerCase()
  if (search === '' && f.stream === '' && f.client === '') return undefined
  return (line) =>
    (f.stream === '' || line.stream === f.stream) &&
    (f.client === '' || line.client === f.client) &&
    (search === '' || plain(line.text).toLowerCase().includes(search) || line.client.toLowerCase().includes(search))
}

/** The lines of a buffer that a filter picks, the oldest first. Each line of the buffer is looked at once. */
export class Picked {
  lines: Line[] = []
  private seen = 0 // lines of the buffer, with those let go of
  private dropped = 0

  /** Without a filter it is all of them. */
  constructor(
    private readonly buffer: LogBuffer,
    private readonly matches?: (line: Line) => boolean,
  ) {
    this.update()
  }

  /** update takes in what the buffer has become, and says how many of its own lines were added at the end and let go of at the start. */
  update(): { added: number; gone: number } {
    const { lines, dropped } = this.buffer
    const from = Math.max(this.seen, dropped)
    const change = this.matches ? this.sift(from - dropped) : { added: dropped + lines.length - this.seen, gone: dropped - this.dropped }
    if (!this.matches) this.lines = lines
    this.seen = dropped + lines.length
    this.dropped = dropped
    return change
  }

  private sift(from: number) {
    const { lines } = this.buffer
    const oldest = lines[0]?.no ?? Infinity
    let gone = 0
    while (gone < this.lines.length && this.lines[gone]!.no < oldest) gone++
    if (gone > 0) this.lines = this.lines.slice(gone)
    const before = this.lines.length
    for (let i = from; i < lines.length; i++) if (this.matches!(lines[i]!)) this.lines.push(lines[i]!)
    return { added: this.lines.length - before, gone }
  }
}
