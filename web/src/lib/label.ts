import type { Task } from '@/api/types'

type Translate = (key: string, named?: Record<string, unknown>) => string

/** The status of a task in words: where it runs, what it does. */
export function taskLabel(task: Pick<Task, 'status' | 'phase' | 'wave'>, t: Translate): string {
  if (task.status !== 'running') return t(`state.${task.status}`)
  if (task.phase === 'wave') return t('phase.wave', { n: task.wave })
  return t(`phase.${task.phase}`)
}
