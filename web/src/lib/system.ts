import type { System } from '@/api/types'

export interface Part {
  key: 'server' | 'hub' | 'database' | 'temporal' | 'disk'
  state: 'works' | 'failing' | 'full'
}

/** From which share on a limit is worth a look. */
const nearly = 0.9

/** How each part is: what the checks say, and what is nearly used up. */
export function partsOf(checks: Record<string, string> | undefined, system: System | undefined): Part[] {
  const by = (name: string): Part['state'] => (checks?.[name] !== undefined && checks[name] !== 'ok' ? 'failing' : 'works')
  const hub = system?.hubs.find((h) => h.this)
  const parts: Part[] = [
    { key: 'server', state: 'works' },
    { key: 'hub', state: hub?.sessions_max && hub.sessions >= hub.sessions_max * nearly ? 'full' : by('hub') },
    { key: 'database', state: by('database') },
    { key: 'temporal', state: by('temporal') },
  ]
  const disk = system?.disk
  if (disk) parts.push({ key: 'disk', state: disk.free < disk.size * (1 - nearly) ? 'full' : 'works' })
  return parts
}
