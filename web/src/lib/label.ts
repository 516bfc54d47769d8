import { isStatus } from '@/api/client'
import type { BatchJob, Task } from '@/api/types'

type Translate = (key: string, named?: Record<string, unknown>) => string

/** The status of a task in words: where it runs, what it does. */
export function taskLabel(task: Pick<Task, 'status' | 'phase' | 'wave'>, t: Translate): string {
  if (task.status !== 'running') return t(`state.${task.status}`)
  if (task.phase === 'wave') return t('phase.wave', { n: task.wave })
  return t(`phase.${task.phase}`)
}

/** What went wrong, for a person. */
export const told = (e: Error, t: Translate): string => (isStatus(e, 0) ? t('error.unreachable') : e.message)

/** A duration as the server writes it, without the zeros at its end. */
export const short = (d: string) => d.replace(/([hm])0s$/, '$1').replace(/h0m$/, 'h')

/** How a job goes about it, where it was asked for: what is left out is the server's default. */
export function jobWords(o: BatchJob['options'], t: Translate, num: (n: number) => string): string[] {
  const words: string[] = []
  if (o.concurrency) words.push(t('command.option.concurrency', { n: num(o.concurrency) }))
  if (o.task_timeout) words.push(t('command.option.timeout', { time: short(o.task_timeout) }))
  if (o.retries) words.push(t('command.option.retries', { n: num(o.retries) }))
  if (o.max_failures !== undefined && String(o.max_failures) !== '') words.push(t('command.option.maxFailures', { n: o.max_failures }))
  if (o.wait_offline && o.wait_offline !== '0s') words.push(t('command.option.waitOffline', { time: short(o.wait_offline) }))
  return words
}
