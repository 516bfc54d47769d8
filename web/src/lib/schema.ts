import all from '@/api/specs.json'
import type { components } from '@/api/schema'

/** A part of a JSON schema, as far as the API's own use it. */
export interface Schema {
  $ref?: string
  type?: string
  format?: string
  description?: string
  examples?: unknown[]
  default?: unknown
  enum?: string[]
  minimum?: number
  maximum?: number
  items?: Schema
  properties?: Record<string, Schema>
  additionalProperties?: Schema | boolean
  required?: string[]
  oneOf?: Schema[]
}

export type SpecType = 'script' | 'container' | 'git' | 'kubernetes'
export type Layer = 'project' | 'version' | 'task'
export type Rule = components['schemas']['Rule']
export interface FieldError {
  location: string
  message: string
}

/** How a value is asked for. lines is text of many lines in a fixed pitch; json is for what there is no other way. */
export type Kind = 'text' | 'lines' | 'number' | 'switch' | 'select' | 'list' | 'map' | 'object' | 'json'

/** A value to ask for. */
export interface Node {
  kind: Kind
  schema: Schema
  /** Of the values in a list or a map. */
  item?: Node
}

/** A value with a name. */
export interface Field extends Node {
  name: string
  doc: string
  /** What counts while it is not set, in words. */
  initial: string
  required: boolean
  group: string
}

export interface Group {
  name: string
  fields: Field[]
}

const schemas = all as unknown as Record<string, Schema>
export const specNames: Record<SpecType, string> = { script: 'ScriptSpec', container: 'ContainerSpec', git: 'GitSpec', kubernetes: 'KubernetesSpec' }

/** schemaOf gives a schema by its name; it throws if there is none. */
export function schemaOf(name: string): Schema {
  const found = schemas[name]
  if (!found) throw new Error(`there is no schema ${name}`)
  return found
}

/** resolve follows a reference; what stands beside it counts before what it leads to. */
export function resolve(schema: Schema): Schema {
  if (!schema.$ref) return schema
  const { $ref, ...beside } = schema
  return { ...resolve(schemaOf($ref.split('/').at(-1)!)), ...beside }
}

/** nodeOf says how to ask for a value. */
export function nodeOf(schema: Schema): Node {
  const s = resolve(schema)
  if (s.enum) return { kind: 'select', schema: s }
  switch (s.type) {
    case 'string':
      return { kind: s.format === 'script' || s.format === 'yaml' || s.format === 'text' ? 'lines' : 'text', schema: s }
    case 'integer':
    case 'number':
      return { kind: 'number', schema: s }
    case 'boolean':
      return { kind: 'switch', schema: s }
    case 'array':
      return s.items ? { kind: 'list', schema: s, item: nodeOf(s.items) } : { kind: 'json', schema: s }
    case 'object':
      if (s.properties) return { kind: 'object', schema: s }
      if (typeof s.additionalProperties === 'object') return { kind: 'map', schema: s, item: nodeOf(s.additionalProperties) }
  }
  // A limit: a count or a share, which is always taken as text.
  if (s.oneOf?.some((x) => x.type === 'string')) return { kind: 'text', schema: s }
  return { kind: 'json', schema: s }
}

/** splitDoc parts what a value is from what counts without it. */
export function splitDoc(text: string): { doc: string; initial: string } {
  const at = /(?:^|[.;] )Defaults to (.+)$/s.exec(text)
  if (!at) return { doc: text, initial: '' }
  return { doc: text.slice(0, at.index), initial: at[1]! }
}

function fieldOf(name: string, schema: Schema, required: boolean, group = '', doc?: string): Field {
  const node = nodeOf(schema)
  const split = splitDoc(doc || node.schema.description || '')
  const initial = node.schema.default === undefined ? split.initial : String(node.schema.default)
  return { ...node, name, doc: split.doc, initial, required, group }
}

/** fieldsOf gives the fields of an object, those that it must have first. */
export function fieldsOf(schema: Schema): Field[] {
  const s = resolve(schema)
  const required = new Set(s.required ?? [])
  const fields = Object.entries(s.properties ?? {}).map(([name, v]) => fieldOf(name, v, required.has(name)))
  return [...fields.filter((f) => f.required), ...fields.filter((f) => !f.required)]
}

/** layerGroups gives the fields that a layer may set, in the order of the rules, by what they are about. */
export function layerGroups(type: SpecType, layer: Layer, rules: Rule[]): Group[] {
  const properties = resolve(schemaOf(specNames[type])).properties ?? {}
  const groups = new Map<string, Group>()
  for (const rule of rules) {
    const schema = properties[rule.path]
    if (!schema || !rule.layers.includes(layer)) continue // Those below an object come with it.
    const group = groups.get(rule.group) ?? { name: rule.group, fields: [] }
    groups.set(rule.group, group)
    group.fields.push(fieldOf(rule.path, schema, false, rule.group, rule.doc))
  }
  return [...groups.values()]
}

/** isSet says whether a field of a configuration says something. */
export function isSet(values: Record<string, unknown>, name: string): boolean {
  return values[name] !== undefined && values[name] !== null
}

/** matches says whether a field is one that is looked for, by its name, what it is, or what is within it. */
export function matches(field: Field, words: string): boolean {
  const text = [field.name, field.doc, ...namesWithin(field)].join(' ').toLowerCase()
  return words.toLowerCase().split(/\s+/).every((w) => text.includes(w))
}

function namesWithin(node: Node): string[] {
  if (node.kind === 'object') return fieldsOf(node.schema).flatMap((f) => [f.name, ...namesWithin(f)])
  return node.item ? namesWithin(node.item) : []
}

/** openGroups gives the groups to open at first: leading ones until about as many fields are seen as one reads, and those with something in them. */
export function openGroups(groups: Group[], values: Record<string, unknown>, few = 10): Set<string> {
  const open = new Set<string>()
  const all = groups.reduce((n, g) => n + g.fields.length, 0)
  let seen = 0
  for (const g of groups) {
    if (all <= 2 * few || seen < few || g.fields.some((f) => isSet(values, f.name))) open.add(g.name)
    seen += g.fields.length
  }
  return open
}

/** withValue gives a copy of a configuration in which a field is set, or, without a value, absent. */
export function withValue(values: Record<string, unknown>, name: string, value: unknown): Record<string, unknown> {
  if (value === undefined || value === null || value === '') {
    const { [name]: _, ...rest } = values
    return rest
  }
  return { ...values, [name]: value }
}

/** emptyOf gives what a new value in a list or map begins with. */
export function emptyOf(node: Node): unknown {
  switch (node.kind) {
    case 'object':
    case 'map':
      return {}
    case 'list':
      return []
    case 'switch':
      return false
    case 'number':
      return node.schema.minimum ?? 0
    default:
      return ''
  }
}

/** exampleOf gives an example of a value, to be shown where there is none; at: within a list or map. */
export function exampleOf(node: Node, at?: number): string {
  const example = node.schema.examples?.[0]
  if (at !== undefined) return Array.isArray(example) ? String(example[at] ?? '') : ''
  if (example === undefined || typeof example === 'object') return ''
  return String(example)
}

/** exampleEntry gives an example of the entries of a map. */
export function exampleEntry(node: Node): [string, string] {
  const example = node.schema.examples?.[0]
  if (typeof example !== 'object' || example === null || Array.isArray(example)) return ['', '']
  const [entry] = Object.entries(example)
  return entry ? [entry[0], String(entry[1])] : ['', '']
}

/** The parts of a path such as patches[0].patch. */
const parts = (path: string): string[] => path.split(/[.[\]]/).filter((p) => p !== '')

/** below gives what is wrong within a part of a type's configuration: body.script.env.A is env.A, as is body.override.script.env.A. */
export function below(errors: FieldError[], part: string): FieldError[] {
  const found: FieldError[] = []
  for (const e of errors) {
    const at = parts(e.location)
    const i = at.indexOf(part)
    if (i >= 0 && i <= 2) found.push({ location: at.slice(i + 1).join('.'), message: e.message })
  }
  return found
}

/** under gives those of a field or an item, by their place within it; what names the field itself has none. */
export function under(errors: FieldError[], name: string): FieldError[] {
  return errors
    .filter((e) => e.location === name || e.location.startsWith(`${name}.`))
    .map((e) => ({ location: e.location.slice(name.length + 1), message: e.message }))
}

/** ownErrors gives the messages to show at a value itself: those that name it, and those within it for which nothing is shown that could bear them. */
export function ownErrors(node: Node, value: unknown, errors: FieldError[]): string[] {
  return errors.filter((e) => e.location === '' || !bears(node, value, e.location)).map((e) => (e.location === '' ? e.message : `${e.location}: ${e.message}`))
}

function bears(node: Node, value: unknown, location: string): boolean {
  const first = location.split('.')[0]!
  switch (node.kind) {
    case 'object':
      return typeof value === 'object' && value !== null && first in (node.schema.properties ?? {})
    case 'list':
      return Array.isArray(value) && /^\d+$/.test(first) && Number(first) < value.length
    case 'map':
      return typeof value === 'object' && value !== null && first in value
    default:
      return false
  }
}

/** lostErrors gives what names no field that a form has. */
export function lostErrors(groups: Group[], errors: FieldError[]): FieldError[] {
  const names = new Set(groups.flatMap((g) => g.fields.map((f) => f.name)))
  return errors.filter((e) => !names.has(e.location.split('.')[0]!))
}

/** at gives the messages for a field of a request beside its configuration: body.name is name. */
export function at(errors: FieldError[], name: string): string {
  return errors.filter((e) => e.location === name || e.location === `body.${name}`).map((e) => e.message).join('; ')
}
