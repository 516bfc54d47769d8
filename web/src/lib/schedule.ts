import type { Fire, Schedule } from '@/api/types'

/** stateOf gives where a schedule stands: one that fires once is over after that. */
export function stateOf(s: Pick<Schedule, 'paused' | 'next' | 'in_effect'>): 'paused' | 'active' | 'over' {
  if (s.paused) return 'paused'
  return s.next.length > 0 ? 'active' : 'over'
}

/** fireStatus gives what to show of a fire: of one that made a task, how that goes. */
export const fireStatus = (f: Pick<Fire, 'state' | 'task_status'>): string => (f.state === 'started' && f.task_status ? f.task_status : f.state)
