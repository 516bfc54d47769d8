import type { NewTask, Strategy } from '@/api/types'
import { idsOf } from './command'

/** What a person has typed of a new task. Empty: what the environment says, or the default. */
export interface Draft {
  action: 'deploy' | 'uninstall'
  project: string
  version: string
  environment: string
  by: 'selector' | 'clients'
  selector: string
  clients: string
  canary: '' | 'none' | 'own'
  /** How the size of the canary is said. */
  unit: '%' | 'hosts'
  size: number | undefined
  soak: string
  promote: '' | 'auto' | 'manual'
  canaryFailures: string
  waves: string
  parallel: number | undefined
  failures: string
  onFailure: '' | 'stop' | 'rollback'
  offline: '' | 'skip' | 'fail'
  /** The part of the project's type. */
  override: Record<string, unknown>
}

export const emptyDraft = (): Draft => ({
  action: 'deploy', project: '', version: '', environment: '', by: 'selector', selector: '', clients: '', canary: '', unit: '%', size: undefined, soak: '', promote: '', canaryFailures: '',
  waves: '', parallel: undefined, failures: '', onFailure: '', offline: '', override: {},
})

/** wavesOf reads "25, 50, 100"; undefined if it cannot be read. That the shares rise is the server's to say. */
export function wavesOf(text: string): number[] | undefined {
  const parts = text.split(/[\s,;%]+/).filter(Boolean)
  const waves = parts.map(Number)
  return waves.every((w) => Number.isFinite(w)) ? waves : undefined
}

/** percentOf gives the share that makes a canary of exactly so many hosts of a total: the server rounds up. */
export const percentOf = (hosts: number, total: number) => (total > 0 ? Math.min(100, (hosts / total) * 100) : 0)

/** hostsOf gives how many hosts a share is, as the server counts: rounded up, one at least. */
export const hostsOf = (percent: number, total: number) => (percent <= 0 || total <= 0 ? 0 : Math.max(1, Math.min(total, Math.ceil((total * percent) / 100 - 1e-9))))

const limit = (text: string): string | undefined => text.trim() || undefined

/** strategyOf gives what a draft says of the strategy; total: how many hosts it picks. */
export function strategyOf(d: Draft, total: number): Strategy {
  const s: Strategy = {}
  if (d.canary === 'none') s.canary = { percent: 0 }
  if (d.canary === 'own') {
    const size = d.size ?? 0
    s.canary = { percent: d.unit === 'hosts' ? percentOf(size, total) : size }
    if (d.soak.trim()) s.canary.soak = d.soak.trim()
    if (d.promote) s.canary.promote = d.promote
    const failures = limit(d.canaryFailures)
    if (failures) s.canary.max_failures = failures
  }
  const waves = wavesOf(d.waves) ?? []
  if (waves.length > 0) s.waves = waves
  if (d.parallel) s.max_parallel = d.parallel
  const failures = limit(d.failures)
  if (failures) s.max_failures = failures
  if (d.onFailure) s.on_failure = d.onFailure
  if (d.offline) s.offline = d.offline
  return s
}

/** taskOf gives the task that a draft asks for. type: of the project. */
export function taskOf(d: Draft, type: string | undefined, total: number): NewTask {
  const task: NewTask = { project: d.project, action: d.action }
  if (d.action === 'deploy') task.version = d.version
  if (d.environment) task.environment = d.environment
  if (d.by === 'selector' && d.selector.trim()) task.targets = { selector: d.selector.trim() }
  if (d.by === 'clients' && idsOf(d.clients).length > 0) task.targets = { clients: idsOf(d.clients) }
  const strategy = strategyOf(d, total)
  if (Object.keys(strategy).length > 0) task.strategy = strategy
  if (d.action === 'deploy' && type && Object.keys(d.override).length > 0) task.override = { [type]: d.override }
  return task
}

/** draftOf gives the draft of a task that there is: of a schedule that is edited. */
export function draftOf(task: NewTask): Draft {
  const d = emptyDraft()
  d.action = task.action ?? 'deploy'
  d.project = task.project
  d.version = task.version ?? ''
  d.environment = task.environment ?? ''
  d.selector = task.targets?.selector ?? ''
  if (task.targets?.clients?.length) {
    d.by = 'clients'
    d.clients = task.targets.clients.join('\n')
  }
  const s = task.strategy ?? {}
  if (s.canary && s.canary.percent === 0) d.canary = 'none'
  else if (s.canary) {
    d.canary = 'own'
    d.size = s.canary.percent
    d.soak = s.canary.soak && !/^0s?$/.test(s.canary.soak) ? s.canary.soak : ''
    d.promote = s.canary.promote ?? ''
    d.canaryFailures = said(s.canary.max_failures)
  }
  d.waves = (s.waves ?? []).join(', ')
  d.parallel = s.max_parallel || undefined
  d.failures = said(s.max_failures)
  d.onFailure = s.on_failure ?? ''
  d.offline = s.offline ?? ''
  const { env, timeout, ...parts } = task.override ?? {}
  const own = { ...(Object.values(parts).find((p) => p !== undefined) as Record<string, unknown> | undefined) }
  // What counts for every type is the same there.
  if (env && Object.keys(env).length > 0) own.env = { ...env, ...(own.env as Record<string, string> | undefined) }
  if (timeout && timeout !== '0s' && own.timeout === undefined) own.timeout = timeout
  d.override = own
  return d
}
const said = (l: string | number | undefined) => (l === undefined || String(l) === '0' ? '' : String(l))

/** What counts where a task says nothing: the environment's, then the defaults. */
export function defaultsOf(environment: Strategy | undefined) {
  const e = environment ?? {}
  return {
    canary: e.canary && e.canary.percent > 0 ? e.canary : undefined,
    waves: e.waves?.length ? e.waves.join(', ') : '100',
    parallel: e.max_parallel || 100,
    failures: String(e.max_failures ?? 0),
    onFailure: e.on_failure || 'stop',
    offline: e.offline || 'skip',
  } as const
}

export type Defaults = ReturnType<typeof defaultsOf>

/** canaryOf gives what follows the canary of a draft; undefined if it has none. */
export function canaryOf(d: Draft, defaults: Defaults): { soak?: string; promote?: string } | undefined {
  if (d.canary === 'none') return undefined
  return d.canary === 'own' ? { soak: d.soak.trim(), promote: d.promote || 'auto' } : defaults.canary
}

/** problemsAt gives what is wrong with a part of a request: body.task.strategy.waves is one of strategy.waves, and of strategy with deep. */
export function problemsAt(fields: { location: string; message: string }[], at: string, deep = false): string {
  const own = fields.filter((f) => {
    const location = withoutBody(f.location)
    return location === at || (deep && location.startsWith(`${at}.`))
  })
  return own.map((f) => f.message).join('; ')
}
const withoutBody = (location: string) => location.replace(/^body\./, '').replace(/^task\./, '')

/** problemsBeside gives those that none of the places bears. */
export function problemsBeside(fields: { location: string; message: string }[], places: string[]) {
  return fields.filter((f) => {
    const location = withoutBody(f.location)
    return !places.some((p) => location === p || location.startsWith(`${p}.`))
  })
}

/** A key for what is to be done once, however often it is asked for: another one as soon as it is another request. */
export interface OnceKey {
  value: string
  body: string
}
export function onceKey(last: OnceKey | undefined, body: string): OnceKey {
  if (last?.body === body) return last
  // randomUUID is there with TLS only.
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  return { value: [...bytes].map((b) => b.toString(16).padStart(2, '0')).join(''), body }
}
