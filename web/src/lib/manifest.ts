import type { Environment, Project, Variable, Version } from '@/api/types'

/** What the server keeps for itself, and no file says. */
const theServers = ['id', 'project_id', 'revision', 'created_at', 'updated_at']
/** Keys that stand before the others, in this order. */
const firstKeys = ['kind', 'project', 'environment', 'name', 'version', 'status', 'type', 'description']

/** document gives a thing as a file for quic-ctl apply has it, as quic-ctl export does. Of a secret it has no value: apply keeps the one that is there. */
export function document(kind: 'Project' | 'Environment' | 'Variable' | 'Version', thing: object): Record<string, unknown> {
  const out: Record<string, unknown> = { kind }
  for (const [key, value] of Object.entries(thing)) if (!theServers.includes(key) && value !== undefined) out[key] = value
  if (typeof out.strategy === 'object' && out.strategy !== null) {
    const { max_failures, ...rest } = out.strategy as Record<string, unknown>
    const strategy = max_failures === '0' || max_failures === undefined ? rest : { max_failures, ...rest }
    if (Object.keys(strategy).length > 0) out.strategy = strategy
    else delete out.strategy
  }
  if (out.secret === true) delete out.value
  else if (kind === 'Variable') {
    delete out.secret
    out.value ??= ''
  }
  const place = (key: string) => (firstKeys.indexOf(key) + firstKeys.length + 1) % (firstKeys.length + 1)
  return Object.fromEntries(Object.entries(out).sort(([a], [b]) => place(a) - place(b) || (a < b ? -1 : 1)))
}

/** documents gives all of a project in the order in which things need each other. versions: the newest first, as the API lists them. */
export function documents(project: Project, environments: Environment[], variables: Variable[], versions: Version[]): Record<string, unknown>[] {
  return [
    document('Project', project), ...environments.map((e) => document('Environment', e)), ...variables.map((v) => document('Variable', v)),
    ...versions.toReversed().map((v) => document('Version', v)),
  ]
}

/** yamlOf writes documents as YAML. It loads what it needs for that. */
export async function yamlOf(docs: unknown[]): Promise<string> {
  const { stringify } = await import('yaml')
  return docs.map((d) => stringify(d, { lineWidth: 0, aliasDuplicateObjects: false })).join('---\n')
}
