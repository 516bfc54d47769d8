import { FitAddon } from '@xterm/addon-fit'
import { Terminal } from '@xterm/xterm'
import '@xterm/xterm/css/xterm.css'

/**
 * What xterm needs of a document, without inline styles: it writes style elements and style attributes, which our policy
 * forbids. Both become what the policy leaves alone: a sheet made by script, and the CSSOM.
 */
function strictDocument(): Document {
  return new Proxy(document, {
    get(real, name) {
      if (name === 'createElement') return createElement
      const value = Reflect.get(real, name, real) as unknown
      return typeof value === 'function' ? (value.bind(real) as unknown) : value
    },
  })
}

const make = (tag: string) => Document.prototype.createElement.call(document, tag)

function createElement(tag: string): HTMLElement {
  if (tag === 'style') return sheetElement()
  const element = make(tag)
  const set = element.setAttribute.bind(element)
  element.setAttribute = (name: string, value: string) => {
    if (name === 'style') element.style.cssText = value
    else set(name, value)
  }
  return element
}

/** An element whose text is a sheet of the document for as long as it is there. */
function sheetElement(): HTMLElement {
  const element = make('span')
  element.hidden = true
  const sheet = new CSSStyleSheet()
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet]
  Object.defineProperty(element, 'textContent', { set: (text: string) => sheet.replaceSync(text), get: () => '' })
  const remove = element.remove.bind(element)
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((s) => s !== sheet)
    remove()
  }
  return element
}

export interface Screen {
  write: (text: string) => void
  clear: () => void
  fit: () => void
  theme: () => void
  dispose: () => void
}

function colors() {
  const style = getComputedStyle(document.documentElement)
  const c = (name: string) => style.getPropertyValue(name).trim()
  return {
    background: c('--c-code'), foreground: c('--c-text'), cursor: c('--c-code'), selectionBackground: c('--c-accent-soft'),
    black: '#3b4350', red: c('--s-failed'), green: c('--s-succeeded'), yellow: c('--s-paused'), blue: c('--s-running'), magenta: c('--s-unknown'),
    cyan: '#2a9aa8', white: c('--c-quiet'), brightBlack: c('--c-quiet'), brightRed: c('--s-failed'), brightGreen: c('--s-succeeded'),
    brightYellow: c('--s-paused'), brightBlue: c('--s-running'), brightMagenta: c('--s-unknown'), brightCyan: '#2a9aa8', brightWhite: c('--c-text'),
  }
}

/** A terminal that shows what a host printed. It takes no keys. */
export function openTerminal(into: HTMLElement): Screen {
  const terminal = new Terminal({
    convertEol: true, disableStdin: true, cursorInactiveStyle: 'none', scrollback: 100_000, fontSize: 12.5, lineHeight: 1.35,
    fontFamily: getComputedStyle(document.documentElement).getPropertyValue('--mono'), theme: colors(), documentOverride: strictDocument(), screenReaderMode: true,
  })
  const fitting = new FitAddon()
  terminal.loadAddon(fitting)
  // A part of it asks the page's own document, whatever it was given, but only while it opens.
  document.createElement = createElement as typeof document.createElement
  try {
    terminal.open(into)
  } finally {
    delete (document as { createElement?: unknown }).createElement
  }
  fitting.fit()
  return {
    write: (text) => terminal.write(text),
    clear: () => terminal.reset(),
    fit: () => fitting.fit(),
    theme: () => (terminal.options.theme = colors()),
    dispose: () => terminal.dispose(),
  }
}
