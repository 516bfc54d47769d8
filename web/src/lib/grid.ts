import type { Wave } from '@/api/types'

/** Where the cells of a grid lie, in px. Each wave begins a row of its own. */
export interface Layout {
  cell: number
  width: number
  height: number
  columns: number
  /** The runs of cells, one a wave. */
  blocks: { from: number; size: number; y: number }[]
  place: (index: number) => { x: number; y: number }
  /** The run that a cell is in. */
  blockOf: (index: number) => { from: number; size: number; y: number }
  /** The index of the cell at a point, -1 where there is none. */
  index: (x: number, y: number) => number
}

const largest = 18
const smallest = 3
const wished = 240 // height, where cells may be smaller for it
const between = 6 // waves

/** layout chooses the size of cells so that all of n fit into the width and, if they can, into a moderate height. */
export function layout(n: number, waves: Pick<Wave, 'size'>[], width: number): Layout {
  const sizes = waves.map((w) => w.size)
  const known = sizes.reduce((a, b) => a + b, 0)
  if (n > known) sizes.push(n - known)
  const room = Math.max(width, smallest)
  const rowsAt = (cell: number) => {
    const columns = Math.max(1, Math.floor(room / cell))
    return sizes.reduce((rows, size) => rows + Math.ceil(size / columns), 0)
  }
  const heightAt = (cell: number) => rowsAt(cell) * cell + Math.max(0, sizes.length - 1) * between
  let cell = largest
  while (cell > smallest && heightAt(cell) > wished) cell--
  const columns = Math.max(1, Math.floor(room / cell))
  const starts: { from: number; size: number; y: number }[] = []
  let from = 0
  let y = 0
  for (const size of sizes) {
    starts.push({ from, size, y })
    from += size
    y += Math.ceil(size / columns) * cell + between
  }
  const height = Math.max(cell, y - between)
  const blockOf = (index: number) => {
    let low = 0
    let high = starts.length - 1
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if (starts[middle]!.from <= index) low = middle
      else high = middle - 1
    }
    return starts[low]!
  }
  return {
    cell, width: Math.max(1, Math.min(room, columns * cell)), height, columns, blocks: starts, blockOf,
    place(index) {
      const block = blockOf(index)
      const i = index - block.from
      return { x: (i % columns) * cell, y: block.y + Math.floor(i / columns) * cell }
    },
    index(x, y) {
      const column = Math.floor(x / cell)
      if (x < 0 || y < 0 || column >= columns) return -1
      for (const block of starts) {
        const row = Math.floor((y - block.y) / cell)
        if (row < 0) return -1
        const i = row * columns + column
        if (i < block.size && row < Math.ceil(block.size / columns)) return block.from + i < n ? block.from + i : -1
      }
      return -1
    },
  }
}
