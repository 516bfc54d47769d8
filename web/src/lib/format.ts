import { useI18n } from 'vue-i18n'
import { duration } from './time'

/** Numbers and durations in the language of the page. */
export function useFormat() {
  const { t, locale } = useI18n()
  const tag = () => (locale.value === 'zh' ? 'zh-CN' : 'en')
  return {
    tag,
    num: (n: number) => new Intl.NumberFormat(tag()).format(n),
    rate: (n: number) => new Intl.NumberFormat(tag(), { maximumFractionDigits: n < 10 ? 1 : 0 }).format(n),
    percent: (n: number) => new Intl.NumberFormat(tag(), { style: 'percent', maximumFractionDigits: 1 }).format(n),
    took: (ms: number) => duration(ms, { d: t('unit.d'), h: t('unit.h'), min: t('unit.min'), s: t('unit.s') }),
  }
}
