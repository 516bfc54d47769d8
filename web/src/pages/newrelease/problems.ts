import { ApiError } from '@/api/client'
import { problemsBeside, wavesOf, type Draft } from '@/lib/newtask'
import { atOf, type When } from '@/lib/when'

export type Need = 'project' | 'version' | 'targets' | 'canary' | 'name' | 'at' | 'cron' | 'mended'

/** needOf gives what is still missing before it can be done; undefined if nothing is. hosts: how many are picked; refused: the server found something wrong. */
export function needOf(draft: Draft, when: When, hosts: number, refused: boolean): Need | undefined {
  if (draft.project === '') return 'project'
  if (draft.action === 'deploy' && draft.version === '') return 'version'
  if (when.kind === 'now' && hosts === 0) return 'targets'
  if (draft.canary === 'own' && !draft.size) return 'canary'
  if (when.kind !== 'now' && when.name.trim() === '') return 'name'
  if (when.kind === 'once' && !atOf(when)) return 'at'
  if (when.kind === 'cron' && when.cron.trim() === '') return 'cron'
  if (refused || wavesOf(draft.waves) === undefined) return 'mended'
  return undefined
}

/** placesOf gives the parts of a request that have a field to say what is wrong with them. */
export function placesOf(draft: Draft, when: When, type: string | undefined): string[] {
  const strategy = ['canary', 'waves', 'max_parallel', 'max_failures', 'on_failure', 'offline'].map((part) => `strategy.${part}`)
  return [
    'project', 'version', 'environment', 'targets', ...strategy, ...(draft.action === 'deploy' && type ? [`override.${type}`] : []),
    ...(when.kind === 'now' ? [] : ['name', 'at', 'cron', 'timezone', 'overlap', 'catchup_window', 'jitter', 'note']),
  ]
}

/** restOf gives what of a refusal none of the places bears; undefined if they bear all of it. */
export function restOf(e: ApiError, places: string[]): ApiError | undefined {
  if (e.fields.length === 0) return e
  const rest = problemsBeside(e.fields, places)
  return rest.length > 0 ? new ApiError(e.status, rest.map((f) => f.message).join('; ')) : undefined
}
