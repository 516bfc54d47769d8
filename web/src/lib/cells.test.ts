import { describe, expect, it } from 'vitest'
import { Changes, codes, ink, Pixels } from './cells'
import { layout } from './grid'

describe('Changes', () => {
  it('finds what changed, a slice at a time', () => {
    const drawn = codes('ppppp')
    const changes = new Changes(codes('pssrf'), drawn)
    const seen: string[] = []
    const paint = (i: number, code: number) => seen.push(`${i}${String.fromCharCode(code)}`)
    changes.some(paint, () => true, 2)
    expect([seen, changes.done]).toEqual([['1s', '2s'], false])
    changes.some(paint, () => true, 2)
    expect([seen, changes.done]).toEqual([['1s', '2s', '3r', '4f'], true])
    expect([...drawn]).toEqual([...codes('pssrf')])
    // What was drawn is not drawn again.
    new Changes(codes('pssrf'), drawn).some(() => expect.unreachable(), () => false)
  })
})

describe('Pixels', () => {
  const place = layout(100_000, [{ size: 1000 }, { size: 99_000 }], 700)
  const image = { width: place.width, height: place.height, data: new Uint8ClampedArray(place.width * place.height * 4) } as ImageData
  const inks = new Uint32Array(128)
  inks['s'.charCodeAt(0)] = ink('#112233', 1)
  const pixels = new Pixels(image, place, 1, inks)
  const at = (x: number, y: number) => [...image.data.slice((y * image.width + x) * 4, (y * image.width + x) * 4 + 4)]

  it('paints each cell where the layout has it, and nothing beside', () => {
    for (const i of [0, 999, 1000, 54_321, 99_999]) {
      image.data.fill(0)
      pixels.paint(i, 's'.charCodeAt(0))
      const { x, y } = place.place(i)
      expect(place.index(x, y)).toBe(i)
      expect(at(x, y)).toEqual([0x11, 0x22, 0x33, 255])
      expect(image.data.filter((v) => v === 0x11)).toHaveLength(place.cell * place.cell)
      expect(pixels.dirty()).toEqual({ from: y, to: y + place.cell })
    }
    expect(pixels.dirty()).toBeUndefined()
  })
})
