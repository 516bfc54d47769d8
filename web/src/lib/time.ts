import { readonly, ref } from 'vue'

const current = ref(Date.now())
let clock: ReturnType<typeof setInterval> | undefined

/** The time for what is shown relative to it, once a second. One clock for the whole page. */
export function useNow() {
  if (clock === undefined) {
    current.value = Date.now() // The page may be open for long without anything that wanted it.
    clock = setInterval(() => {
      if (document.visibilityState !== 'hidden') current.value = Date.now()
    }, 1000)
  }
  return readonly(current)
}

const units: [Intl.RelativeTimeFormatUnit, number][] = [
  ['year', 31_536_000], ['month', 2_592_000], ['day', 86_400], ['hour', 3600], ['minute', 60], ['second', 1],
]

// Making a format costs far more than using it.
const relatives = new Map<string, Intl.RelativeTimeFormat>()
const exacts = new Map<string, Intl.DateTimeFormat>()

/** relative says when something was or will be, as "3 minutes ago". */
export function relative(at: number, now: number, locale: string): string {
  const seconds = Math.round((at - now) / 1000)
  let format = relatives.get(locale)
  if (!format) relatives.set(locale, (format = new Intl.RelativeTimeFormat(locale, { numeric: 'auto', style: 'short' })))
  for (const [unit, size] of units) {
    if (Math.abs(seconds) >= size) return format.format(Math.trunc(seconds / size), unit)
  }
  return format.format(0, 'second')
}

/** exact is the same as a date and a time, to the second, with the zone. */
export function exact(at: number, locale: string): string {
  let format = exacts.get(locale)
  if (!format) exacts.set(locale, (format = new Intl.DateTimeFormat(locale, { dateStyle: 'medium', timeStyle: 'long' })))
  return format.format(at)
}

/** clockTime is the time of day, of logs. */
export function clockTime(at: number): string {
  const d = new Date(at)
  const two = (n: number) => String(n).padStart(2, '0')
  return `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`
}

/** duration says how long, in ms, with two units at most: "1 h 4 min". */
export function duration(ms: number, words: { h: string; min: string; s: string; d: string } = { d: 'd', h: 'h', min: 'min', s: 's' }): string {
  const s = Math.max(0, Math.round(ms / 1000))
  if (s < 60) return ms > 0 && ms < 1000 ? `${Math.round(ms)} ms` : `${s} ${words.s}`
  const parts: [number, string][] = [[Math.floor(s / 86_400), words.d], [Math.floor((s % 86_400) / 3600), words.h], [Math.floor((s % 3600) / 60), words.min], [s % 60, words.s]]
  const first = parts.findIndex(([n]) => n > 0)
  return parts.slice(first, first + 2).filter(([n]) => n > 0).map(([n, w]) => `${n} ${w}`).join(' ')
}
