/** A piece of a line that looks alike. cls are classes; the text is text, never HTML. */
export interface Piece {
  text: string
  cls: string
}

// eslint-disable-next-line no-control-regex
const escape = /\u001b(?:\[([0-9;:?<=>]*)[ -/]*([@-~])|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[@-Z\\^_])/g
// What does not show: all controls but tabs.
// eslint-disable-next-line no-control-regex
const controls = /[\u0000-\u0008\u000b-\u001f\u007f]/g

/** Colours and weights of terminals, for one line. Whatever else a terminal could be told is left out. */
export function ansi(line: string): Piece[] {
  if (!line.includes('\u001b')) return [{ text: line.replace(controls, ''), cls: '' }]
  const pieces: Piece[] = []
  let fg = ''
  let bold = false
  let dim = false
  let from = 0
  const put = (text: string) => {
    const shown = text.replace(controls, '')
    if (shown === '') return
    const cls = [fg, bold ? 'a-bold' : '', dim ? 'a-dim' : ''].filter(Boolean).join(' ')
    const last = pieces[pieces.length - 1]
    if (last && last.cls === cls) last.text += shown
    else pieces.push({ text: shown, cls })
  }
  for (const m of line.matchAll(escape)) {
    put(line.slice(from, m.index))
    from = m.index + m[0].length
    if (m[2] !== 'm') continue
    const codes = (m[1] || '0').split(/[;:]/).map(Number)
    for (let i = 0; i < codes.length; i++) {
      const c = codes[i]!
      if (c === 0) [fg, bold, dim] = ['', false, false]
      else if (c === 1) bold = true
      else if (c === 2) dim = true
      else if (c === 22) [bold, dim] = [false, false]
      else if (c >= 30 && c <= 37) fg = `a-${c - 30}`
      else if (c >= 90 && c <= 97) fg = `a-${c - 90}`
      else if (c === 39) fg = ''
      else if (c === 38 || c === 48) {
        if (c === 38 && codes[i + 1] === 5 && codes[i + 2]! < 16) fg = `a-${codes[i + 2]! % 8}`
        i += codes[i + 1] === 5 ? 2 : 4
      }
    }
  }
  put(line.slice(from))
  return pieces
}

/** The text alone. */
export const plain = (line: string) => line.replace(escape, '').replace(controls, '')

/** marked gives the pieces of a line with what is searched for as pieces of their own, of the class hit; in either case. */
export function marked(line: string, search: string): Piece[] {
  const words = search.trim().toLowerCase()
  const pieces = ansi(line)
  if (words === '') return pieces
  const found: Piece[] = []
  for (const p of pieces) {
    const low = p.text.toLowerCase()
    let from = 0
    for (let hit = low.indexOf(words); hit >= 0; hit = low.indexOf(words, from)) {
      if (hit > from) found.push({ text: p.text.slice(from, hit), cls: p.cls })
      found.push({ text: p.text.slice(hit, hit + words.length), cls: `${p.cls} hit` })
      from = hit + words.length
    }
    if (from < p.text.length) found.push({ text: p.text.slice(from), cls: p.cls })
  }
  return found
}
