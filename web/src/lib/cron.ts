/** When something fires, in parts that a language makes words of; undefined where only the expression itself says it. */
export type CronWords =
  | { kind: 'every'; duration: string }
  | { kind: 'minutes'; n: number }
  | { kind: 'hourly'; minute: number }
  | { kind: 'hours'; n: number; minute: number }
  | { kind: 'daily'; time: string }
  | { kind: 'weekly'; days: number[]; time: string }
  | { kind: 'monthly'; day: number; time: string }
  | { kind: 'yearly'; month: number; day: number; time: string }

const names: Record<string, string> = {
  '@yearly': '0 0 1 1 *', '@annually': '0 0 1 1 *', '@monthly': '0 0 1 * *', '@weekly': '0 0 * * 0', '@daily': '0 0 * * *', '@midnight': '0 0 * * *', '@hourly': '0 * * * *',
}
const weekdays = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat']

/** cronWords reads the expressions that people use most. */
export function cronWords(text: string): CronWords | undefined {
  const cron = text.trim().toLowerCase()
  const every = /^@every\s+(\S+)$/.exec(cron)
  if (every) return { kind: 'every', duration: every[1]! }
  const fields = (names[cron] ?? cron).split(/\s+/)
  if (fields.length !== 5) return undefined
  const [minute, hour, day, month, weekday] = fields as [string, string, string, string, string]
  const anyDay = any(day) && any(month) && any(weekday)
  const everyMinutes = stepOf(minute, 60)
  if (everyMinutes && any(hour) && anyDay) return { kind: 'minutes', n: everyMinutes }
  const m = number(minute, 59)
  if (m === undefined) return undefined
  if (any(hour) && anyDay) return { kind: 'hourly', minute: m }
  const everyHours = stepOf(hour, 24)
  if (everyHours && anyDay) return { kind: 'hours', n: everyHours, minute: m }
  const h = number(hour, 23)
  if (h === undefined) return undefined
  const time = `${String(h).padStart(2, '0')}:${String(m).padStart(2, '0')}`
  if (anyDay) return { kind: 'daily', time }
  if (any(day) && any(month)) {
    const days = daysOf(weekday)
    return days && { kind: 'weekly', days, time }
  }
  const d = number(day, 31)
  if (d === undefined || d === 0 || !any(weekday)) return undefined
  if (any(month)) return { kind: 'monthly', day: d, time }
  const mo = number(month, 12)
  return mo ? { kind: 'yearly', month: mo, day: d, time } : undefined
}

const any = (field: string) => field === '*' || field === '?'
const number = (field: string, most: number) => (/^\d{1,2}$/.test(field) && Number(field) <= most ? Number(field) : undefined)
function stepOf(field: string, whole: number): number | undefined {
  const n = field === '*' && whole === 60 ? 1 : Number(/^\*\/(\d{1,2})$/.exec(field)?.[1])
  // */7 begins anew with each hour: that is not every seven minutes.
  return n > 0 && whole % n === 0 ? n : undefined
}
function daysOf(field: string): number[] | undefined {
  const days = new Set<number>()
  for (const part of field.split(',')) {
    const [from, to] = part.split('-').map((d) => (weekdays.includes(d) ? weekdays.indexOf(d) : number(d, 6)))
    if (from === undefined || part.split('-').length > 2) return undefined
    const last = part.includes('-') ? to : from
    if (last === undefined || last < from) return undefined
    for (let d = from; d <= last; d++) days.add(d)
  }
  return [...days].sort((a, b) => a - b)
}

type Translate = (key: string, named?: Record<string, unknown>, plural?: number) => string

/** whenText says when something fires, in words where there are any. */
export function whenText(when: { at?: string; cron?: string }, t: Translate, locale: string): string {
  if (when.at) return t('schedules.onceAt', { time: new Intl.DateTimeFormat(locale, { dateStyle: 'medium', timeStyle: 'short', hourCycle: 'h23' }).format(Date.parse(when.at)) })
  const words = cronWords(when.cron ?? '')
  if (!words) return when.cron ?? ''
  switch (words.kind) {
    case 'every':
      return t('schedules.words.every', { time: words.duration })
    case 'minutes':
      return words.n === 1 ? t('schedules.words.minute') : t('schedules.words.minutes', { n: words.n })
    case 'hourly':
      return t('schedules.words.hourly', { minute: String(words.minute).padStart(2, '0') })
    case 'hours':
      return t('schedules.words.hours', { n: words.n, minute: String(words.minute).padStart(2, '0') })
    case 'daily':
      return t('schedules.words.daily', words)
    case 'weekly': {
      const days = words.days
      if (days.join() === '1,2,3,4,5') return t('schedules.words.workdays', { time: words.time })
      // 2023-01-01 was a Sunday.
      const name = new Intl.DateTimeFormat(locale, { weekday: days.length > 1 ? 'short' : 'long', timeZone: 'UTC' })
      return t('schedules.words.weekly', { days: days.map((d) => name.format(Date.UTC(2023, 0, 1 + d))).join(locale.startsWith('zh') ? '、' : ', '), time: words.time })
    }
    case 'monthly':
      return t('schedules.words.monthly', { day: words.day, time: words.time })
    case 'yearly':
      return t('schedules.words.yearly', { day: new Intl.DateTimeFormat(locale, { month: 'long', day: 'numeric', timeZone: 'UTC' }).format(Date.UTC(2024, words.month - 1, words.day)), time: words.time })
  }
}

/** zones are the names of the time zones that this browser knows, and the one that counts by default. */
export function zones(): string[] {
  const known = typeof Intl.supportedValuesOf === 'function' ? Intl.supportedValuesOf('timeZone') : []
  return [...new Set(['UTC', ownZone(), ...known])]
}
export const ownZone = () => Intl.DateTimeFormat().resolvedOptions().timeZone || 'UTC'

/** localInput gives a time as an input of type datetime-local has it. */
export function localInput(at: number): string {
  const d = new Date(at)
  const two = (n: number) => String(n).padStart(2, '0')
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}T${two(d.getHours())}:${two(d.getMinutes())}`
}

/** inZone says a time that the API gave in a zone, by the clock of that zone. */
export function inZone(at: string, zone: string | undefined, locale: string): string {
  try {
    return new Intl.DateTimeFormat(locale, { dateStyle: 'medium', timeStyle: 'short', hourCycle: 'h23', timeZone: zone || 'UTC' }).format(Date.parse(at))
  } catch {
    return at // A zone that the server knows and this browser does not.
  }
}
