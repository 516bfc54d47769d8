import type { Project, Version } from '@/api/types'
import type { SpecType } from './schema'

export const types = ['script', 'container', 'git', 'kubernetes'] as const
export const statuses = ['draft', 'active', 'deprecated'] as const

/** partOf gives the part of its type of a project or a version; empty if it says nothing. */
export function partOf(thing: Partial<Project & Version>, type: SpecType): Record<string, unknown> {
  return (thing[type] ?? {}) as Record<string, unknown>
}

/** etagOf gives the If-Match of what was read. */
export const etagOf = (thing: { revision: number }) => `"${thing.revision}"`

/** equal says whether two values are the same as JSON, whatever the order of their keys. */
export function equal(a: unknown, b: unknown): boolean {
  return JSON.stringify(sorted(a)) === JSON.stringify(sorted(b))
}

function sorted(v: unknown): unknown {
  if (Array.isArray(v)) return v.map(sorted)
  if (typeof v !== 'object' || v === null) return v
  return Object.fromEntries(Object.entries(v).filter(([, x]) => x !== undefined).sort(([a], [b]) => (a < b ? -1 : 1)).map(([k, x]) => [k, sorted(x)]))
}
