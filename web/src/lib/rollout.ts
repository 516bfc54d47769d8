import type { Counts, Task } from '@/api/types'

export type Action = 'promote' | 'pause' | 'resume' | 'abort' | 'rollback' | 'retry'

const terminal = ['succeeded', 'partial', 'failed', 'aborted', 'rolled_back']

/** Whether a task has ended. */
export const ended = (task: Pick<Task, 'status'>) => terminal.includes(task.status)

/** Whether a job has ended. */
export const jobEnded = (status: string) => ['completed', 'partial', 'failed', 'cancelled', 'timeout'].includes(status)

/** Hosts on which something of the task may have run. */
export const touched = (c: Counts) => c.total - c.pending - c.offline - c.skipped

/** Hosts that a retry of an ended task takes on: those that were rolled back are left as they are. */
export const undone = (c: Counts) => c.failed + c.unknown + c.offline + c.cancelled + c.skipped + c.rollback_failed

/** What may be done to a task where it stands; the server has the last word. */
export function allowed(task: Pick<Task, 'status' | 'phase' | 'counts' | 'action'>): Record<Action, boolean> {
  const s = task.status
  const running = s === 'running'
  return {
    promote: running && (task.phase === 'promotion' || task.phase === 'soak'),
    pause: s === 'starting' || running,
    resume: s === 'paused',
    abort: s === 'starting' || running || s === 'paused',
    retry: ended(task) && undone(task.counts) > 0,
    rollback: (running || s === 'paused' || s === 'aborting') && touched(task.counts) > 0,
  }
}

/** offered gives the actions that a page offers for a task, the most likely first, and whether each is valid now. Of one that has ended only what is valid is offered. */
export function offered(task: Pick<Task, 'status' | 'phase' | 'counts' | 'action' | 'strategy'>): { action: Action; type: '' | 'primary' | 'danger'; enabled: boolean }[] {
  const may = allowed(task)
  if (ended(task)) return may.retry ? [{ action: 'retry', type: ['failed', 'partial'].includes(task.status) ? 'primary' : '', enabled: true }] : []
  const actions: { action: Action; type: '' | 'primary' | 'danger' }[] = [
    ...(task.strategy.canary ? [{ action: 'promote', type: 'primary' } as const] : []),
    task.status === 'paused' ? { action: 'resume', type: 'primary' } : { action: 'pause', type: '' },
    { action: 'abort', type: '' },
    { action: 'rollback', type: 'danger' },
  ]
  return actions.map((a) => ({ ...a, enabled: may[a.action] }))
}

export interface Step {
  key: string
  kind: 'canary' | 'soak' | 'promotion' | 'wave' | 'rollback'
  wave: number
  size: number
  state: 'done' | 'now' | 'ahead' | 'skipped'
}

/** The steps of a task as a line: what is done, where it is, what is ahead. */
export function steps(task: Pick<Task, 'status' | 'phase' | 'wave' | 'waves' | 'strategy'>): Step[] {
  const line: Omit<Step, 'state'>[] = []
  for (const w of task.waves) {
    if (w.canary) {
      line.push({ key: 'canary', kind: 'canary', wave: w.number, size: w.size })
      const canary = task.strategy.canary
      if (canary?.soak && canary.soak !== '0s' && canary.soak !== '0') line.push({ key: 'soak', kind: 'soak', wave: w.number, size: 0 })
      if (canary?.promote === 'manual') line.push({ key: 'promotion', kind: 'promotion', wave: w.number, size: 0 })
    } else {
      line.push({ key: `wave${w.number}`, kind: 'wave', wave: w.number, size: w.size })
    }
  }
  const rolling = task.status === 'rolling_back' || task.status === 'rolled_back' || task.phase === 'rollback'
  let now = line.findIndex((s) => {
    if (s.wave !== task.wave) return false
    switch (task.phase) {
      case 'soak':
      case 'promotion':
        return s.kind === task.phase
      default:
        return s.kind === 'canary' || s.kind === 'wave'
    }
  })
  const over = ended(task)
  if (task.phase === 'plan') now = task.status === 'starting' ? -1 : 0
  if (task.status === 'succeeded' || task.status === 'partial') now = line.length
  const result: Step[] = line.map((s, i) => ({
    ...s,
    state: i < now ? 'done' : i === now ? (over || rolling ? 'skipped' : 'now') : over || rolling ? 'skipped' : 'ahead',
  }))
  // Where it stopped short of the end, the step it stopped in is the place to look at.
  if ((over || rolling) && now >= 0 && now < result.length) result[now]!.state = 'now'
  if (rolling) result.push({ key: 'rollback', kind: 'rollback', wave: -1, size: 0, state: over ? 'done' : 'now' })
  return result
}

/** The failure budget in hosts, of a limit such as "3" or "10%". */
export function budget(limit: string | number | undefined, total: number): number {
  const text = String(limit ?? '0')
  return text.endsWith('%') ? Math.floor((total * Number.parseFloat(text)) / 100 + 1e-9) : Number.parseInt(text, 10) || 0
}

/** How many ms are left at a rate of hosts a second; undefined where that cannot be said. */
export function timeLeft(task: Pick<Task, 'status' | 'phase' | 'counts'>, rate: number): number | undefined {
  const left = task.counts.pending + task.counts.running
  // What waits for a person, or for time to pass, has no rate.
  if (task.status !== 'running' || !['canary', 'wave'].includes(task.phase) || left === 0 || rate <= 0) return undefined
  return (left / rate) * 1000
}
