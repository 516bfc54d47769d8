/** What state there is to show: one colour and one shape each, everywhere. */
export type Token =
  | 'waiting' | 'running' | 'soaking' | 'paused' | 'succeeded' | 'partial' | 'failed' | 'unknown' | 'offline' | 'online'
  | 'rolledBack' | 'rollbackFailed' | 'cancelled' | 'skipped'

export interface Look {
  /** Of the custom property that holds its colour. */
  color: string
  /** Paths in a box of 16; fill or stroke. */
  shape: { d: string; fill?: boolean }[]
  moving?: boolean
}

const circle = 'M8 2.5a5.5 5.5 0 1 1 0 11 5.5 5.5 0 0 1 0-11Z'

export const looks: Record<Token, Look> = {
  waiting: { color: '--s-waiting', shape: [{ d: circle }] },
  running: { color: '--s-running', shape: [{ d: 'M8 2.5a5.5 5.5 0 0 1 5.5 5.5' }, { d: 'M8 5.5a2.5 2.5 0 1 1 0 5 2.5 2.5 0 0 1 0-5Z', fill: true }, { d: 'M8 13.5A5.5 5.5 0 0 1 2.5 8' }], moving: true },
  soaking: { color: '--s-running', shape: [{ d: circle }, { d: 'M8 4.8V8l2.2 1.6' }] },
  paused: { color: '--s-paused', shape: [{ d: 'M4.5 3h2.4v10H4.5ZM9.1 3h2.4v10H9.1Z', fill: true }] },
  succeeded: { color: '--s-succeeded', shape: [{ d: 'm3 8.5 3.3 3.3L13 4.8' }] },
  partial: { color: '--s-paused', shape: [{ d: 'M8 2.2 14 13H2Z' }, { d: 'M8 6.4v3.2M8 11.3v.2' }] },
  failed: { color: '--s-failed', shape: [{ d: 'm4 4 8 8M12 4l-8 8' }] },
  unknown: { color: '--s-unknown', shape: [{ d: 'M5.5 6a2.5 2.5 0 1 1 3.6 2.2C8.3 8.600 8 9 8 10M8 12.600v.3' }] },
  offline: { color: '--s-offline', shape: [{ d: circle }, { d: 'm4 12 8-8' }] },
  online: { color: '--s-succeeded', shape: [{ d: 'M8 4a4 4 0 1 1 0 8 4 4 0 0 1 0-8Z', fill: true }] },
  rolledBack: { color: '--s-rolled', shape: [{ d: 'M3.5 6.500H10a3 3 0 0 1 0 6H6.500' }, { d: 'M6.200 3.500 3.200 6.500l3 3' }] },
  rollbackFailed: { color: '--s-failed', shape: [{ d: 'M3.500 5.500H10' }, { d: 'M6 3 3.300 5.500 6 8' }, { d: 'm8.500 9 4.500 4.500M13 9l-4.500 4.500' }] },
  cancelled: { color: '--s-offline', shape: [{ d: 'M4 4h8v8H4Z', fill: true }] },
  skipped: { color: '--s-waiting', shape: [{ d: 'M3.500 8h9' }] },
}

const byStatus: Record<string, Token> = {
  // of tasks
  starting: 'waiting', running: 'running', paused: 'paused', aborting: 'cancelled', rolling_back: 'rolledBack', succeeded: 'succeeded',
  partial: 'partial', failed: 'failed', aborted: 'cancelled', rolled_back: 'rolledBack',
  // of hosts
  pending: 'waiting', unknown: 'unknown', offline: 'offline', cancelled: 'cancelled', skipped: 'skipped', rollback_failed: 'rollbackFailed',
  refused: 'failed', timeout: 'failed',
  // of jobs and commands
  cancelling: 'cancelled', completed: 'succeeded', executing: 'running',
  // of schedules and their fires
  over: 'succeeded', requested: 'waiting', started: 'succeeded', missed: 'partial',
  // of agents and what they run
  online: 'online', reconnecting: 'running', installed: 'succeeded',
  // of versions, and schedules
  draft: 'waiting', active: 'succeeded', deprecated: 'skipped',
}

/** tokenOf gives how a status or state of anything looks; what a newer server may add is unknown. */
export function tokenOf(status: string): Token {
  return byStatus[status] ?? 'unknown'
}

/** taskToken gives how a task looks: where it runs, its phase says more. */
export function taskToken(task: { status: string; phase: string }): Token {
  if (task.status === 'running' && task.phase === 'soak') return 'soaking'
  if (task.status === 'running' && task.phase === 'promotion') return 'paused'
  return tokenOf(task.status)
}

/** Whether it goes on by itself, and so moves. */
export function moving(status: string): boolean {
  return ['running', 'executing', 'aborting', 'rolling_back', 'cancelling', 'reconnecting'].includes(status)
}

/** The states of hosts by the letters of a grid, in the order in which they are told. */
export const gridStates: { letter: string; state: string }[] = [
  { letter: 's', state: 'succeeded' }, { letter: 'r', state: 'running' }, { letter: 'f', state: 'failed' }, { letter: 'u', state: 'unknown' },
  { letter: 'x', state: 'rollback_failed' }, { letter: 'b', state: 'rolled_back' }, { letter: 'o', state: 'offline' },
  { letter: 'c', state: 'cancelled' }, { letter: 'k', state: 'skipped' }, { letter: 'p', state: 'pending' },
]
