import { global } from '@/i18n'
import { duration } from './time'

const formats = new Map<string, Intl.NumberFormat>()

function numbers(locale: string, options: Intl.NumberFormatOptions = {}): Intl.NumberFormat {
  const key = locale + JSON.stringify(options)
  let format = formats.get(key)
  if (!format) formats.set(key, (format = new Intl.NumberFormat(locale, options)))
  return format
}

/** Numbers and durations in the language of the page. */
export function useFormat() {
  const { t, locale } = global
  const tag = () => (locale.value === 'zh' ? 'zh-CN' : 'en')
  return {
    tag,
    num: (n: number) => numbers(tag()).format(n),
    rate: (n: number) => numbers(tag(), { maximumFractionDigits: n < 10 ? 1 : 0 }).format(n),
    percent: (n: number) => numbers(tag(), { style: 'percent', maximumFractionDigits: 1 }).format(n),
    bytes: (n: number) => {
      const power = Math.min(4, Math.max(0, Math.floor(Math.log10(Math.max(1, n)) / 3)))
      const value = n / 1000 ** power
      return `${numbers(tag(), { maximumFractionDigits: power > 0 && value < 10 ? 1 : 0 }).format(value)} ${['B', 'kB', 'MB', 'GB', 'TB'][power]}`
    },
    took: (ms: number) => duration(ms, { d: t('unit.d'), h: t('unit.h'), min: t('unit.min'), s: t('unit.s') }),
  }
}
