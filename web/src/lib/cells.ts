import type { Layout } from './grid'

/** codes turns the letters of a grid into bytes, which are quick to compare. */
export function codes(states: string): Uint8Array {
  const out = new Uint8Array(states.length)
  for (let i = 0; i < out.length; i++) out[i] = states.charCodeAt(i)
  return out
}

/** Finds, a slice at a time, which cells look otherwise than they should. */
export class Changes {
  private at = 0

  constructor(
    readonly wanted: Uint8Array,
    /** What is drawn; it is brought up to what is wanted. */
    readonly drawn: Uint8Array,
  ) {}

  get done(): boolean {
    return this.at >= this.wanted.length
  }

  /** Calls paint for cells that have changed, until there are no more or enough says so. It is asked every few hundred cells. */
  some(paint: (index: number, code: number) => void, enough: () => boolean, every = 512): void {
    const { wanted, drawn } = this
    let i = this.at
    let since = 0
    for (; i < wanted.length; i++) {
      const code = wanted[i]!
      if (drawn[i] === code) continue
      paint(i, code)
      drawn[i] = code
      if (++since >= every) {
        since = 0
        if (enough()) {
          i++
          break
        }
      }
    }
    this.at = i
  }
}

/** Cells of one colour each, as pixels: a hundred thousand calls of a canvas would take too long. */
export class Pixels {
  private readonly out: Uint32Array
  private readonly left: Int32Array
  private readonly right: Int32Array
  private top = Infinity
  private bottom = 0

  constructor(
    readonly image: ImageData,
    private readonly layout: Layout,
    private readonly scale: number,
    /** By the code of a state. */
    private readonly inks: Uint32Array,
  ) {
    this.out = new Uint32Array(image.data.buffer)
    const gap = layout.cell >= 4 ? 1 : 0
    this.left = new Int32Array(layout.columns)
    this.right = new Int32Array(layout.columns)
    for (let c = 0; c < layout.columns; c++) {
      this.left[c] = Math.round(c * layout.cell * scale)
      this.right[c] = Math.min(image.width, Math.round((c + 1) * layout.cell * scale) - gap)
    }
  }

  paint(index: number, code: number): void {
    const { cell, columns } = this.layout
    const block = this.layout.blockOf(index)
    const i = index - block.from
    const row = (i / columns) | 0
    const column = i - row * columns
    const x0 = this.left[column]!
    const x1 = this.right[column]!
    const y0 = Math.round((block.y + row * cell) * this.scale)
    const y1 = Math.min(this.image.height, Math.round((block.y + (row + 1) * cell) * this.scale) - (cell >= 4 ? 1 : 0))
    const ink = this.inks[code & 127]!
    const width = this.image.width
    for (let y = y0; y < y1; y++) {
      const end = y * width + x1
      for (let p = y * width + x0; p < end; p++) this.out[p] = ink
    }
    if (y0 < this.top) this.top = y0
    if (y1 > this.bottom) this.bottom = y1
  }

  /** The rows that were painted since the last call, from and to; undefined where there were none. */
  dirty(): { from: number; to: number } | undefined {
    if (this.bottom <= this.top) return undefined
    const rows = { from: this.top, to: this.bottom }
    this.top = Infinity
    this.bottom = 0
    return rows
  }
}

/** The colour #rrggbb as a pixel, with the bytes as they lie in an image. */
export function ink(color: string, alpha: number): number {
  const n = Number.parseInt(color.slice(1), 16)
  return ((Math.round(alpha * 255) << 24) | ((n & 255) << 16) | (n & 0xff00) | (n >> 16)) >>> 0
}
