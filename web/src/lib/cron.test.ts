import { describe, expect, it } from 'vitest'
import { global } from '@/i18n'
import { cronWords, inZone, localInput, whenText } from './cron'
import { fireStatus, stateOf } from './schedule'

const say = (cron: string, locale = 'en') => {
  global.locale.value = locale === 'en' ? 'en' : 'zh'
  const text = whenText({ cron }, global.t as never, locale === 'en' ? 'en-GB' : 'zh-CN')
  global.locale.value = 'en'
  return text
}

describe('cron in words', () => {
  it.each([
    ['30 2 * * *', 'every day at 02:30'], ['@daily', 'every day at 00:00'], ['0 4 * * 1', 'Monday at 04:00'], ['0 9 * * mon-fri', 'Monday to Friday at 09:00'], ['15 8 * * 6,0', 'Sun, Sat at 08:15'],
    ['*/15 * * * *', 'every 15 minutes'], ['* * * * *', 'every minute'], ['5 * * * *', 'every hour, 05 past'], ['@hourly', 'every hour, 00 past'], ['0 */6 * * *', 'every 6 hours, 00 past'],
    ['0 3 1 * *', 'on day 1 of each month at 03:00'], ['0 3 24 12 *', 'every year on 24 December at 03:00'], ['@every 90m', 'every 90m'],
  ])('%s', (cron, words) => expect(say(cron)).toBe(words))
  it.each(['*/7 * * * *', '0 0 13 * 5', '1,2 3 * * *', '0 9-17 * * *', '61 * * * *', '0 0 * * 5-1', 'whenever', '', '0 0 * * 1-2-3', '0 0 0 * *'])('leaves "%s" as it is', (cron) => {
    expect(cronWords(cron)).toBeUndefined()
    expect(say(cron)).toBe(cron)
  })
  it('in Chinese, too', () => expect(say('0 4 * * 1', 'zh')).toBe('星期一 04:00'))
})

it('a time is told by the clock of its zone', () => {
  expect(inZone('2026-12-13T00:00:00+08:00', 'Asia/Shanghai', 'en-GB')).toBe('13 Dec 2026, 00:00')
  expect(inZone('2026-12-13T00:00:00Z', 'Nowhere/Here', 'en-GB')).toBe('2026-12-13T00:00:00Z')
})

it('an input has the time of this place', () => {
  const at = new Date(2026, 10, 3, 4, 5).getTime()
  expect(localInput(at)).toBe('2026-11-03T04:05')
  expect(new Date(localInput(at)).getTime()).toBe(at)
})

it('a schedule is paused, active or over; a fire is what its task is', () => {
  expect(stateOf({ paused: true, next: ['x'], in_effect: true })).toBe('paused')
  expect(stateOf({ paused: false, next: [], in_effect: true })).toBe('over')
  expect(stateOf({ next: ['x'], in_effect: true })).toBe('active')
  expect(fireStatus({ state: 'started', task_status: 'failed' })).toBe('failed')
  expect(fireStatus({ state: 'missed' })).toBe('missed')
})
