import type { NewSchedule, NewTask, Schedule } from '@/api/types'
import { localInput, ownZone } from './cron'

/** When a release is to start, as a person has typed it; and the schedule that is made where that is not now. */
export interface When {
  kind: 'now' | 'once' | 'cron'
  name: string
  /** As an input of type datetime-local has it. */
  at: string
  cron: string
  timezone: string
  overlap: 'skip' | 'buffer_one' | 'allow'
  catchup: string
  jitter: string
  note: string
}

export const emptyWhen = (): When => ({ kind: 'now', name: '', at: '', cron: '0 3 * * *', timezone: ownZone(), overlap: 'skip', catchup: '', jitter: '', note: '' })

/** whenOf gives what would have been typed for a schedule that there is. */
export function whenOf(s: Schedule): When {
  return {
    kind: s.at ? 'once' : 'cron', name: s.name, at: s.at ? localInput(Date.parse(s.at)) : '', cron: s.cron || emptyWhen().cron, timezone: s.timezone || 'UTC', overlap: s.overlap ?? 'skip',
    catchup: s.catchup_window ?? '', jitter: s.jitter && s.jitter !== '0s' ? s.jitter : '', note: s.note ?? '',
  }
}

/** atOf gives the time that was typed as the API takes it; '' while it is none. */
export const atOf = (w: When): string => (w.at && !Number.isNaN(Date.parse(w.at)) ? new Date(w.at).toISOString().replace('.000Z', 'Z') : '')

/** firesOf gives what the next fires follow from. */
export const firesOf = (w: When): { at?: string; cron?: string; timezone: string } => (w.kind === 'once' ? { at: atOf(w), timezone: w.timezone } : { cron: w.cron.trim(), timezone: w.timezone })

/** scheduleOf gives the schedule that is asked for. */
export function scheduleOf(w: When, task: NewTask): NewSchedule {
  return {
    name: w.name.trim(), task, ...firesOf(w), overlap: w.overlap,
    catchup_window: w.catchup.trim() || undefined, jitter: w.jitter.trim() || undefined, note: w.note.trim() || undefined,
  }
}
