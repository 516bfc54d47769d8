// Writes src/api/specs.json: the schemas that forms are made from, and what those refer to, as api/openapi.yaml has them.
import { readFileSync, writeFileSync } from 'node:fs'
import { parse } from 'yaml'

const roots = ['ScriptSpec', 'ContainerSpec', 'GitSpec', 'KubernetesSpec', 'Strategy']
const { schemas } = parse(readFileSync(new URL('../../api/openapi.yaml', import.meta.url), 'utf8')).components
const found = {}

function take(name) {
  if (found[name]) return
  if (!schemas[name]) throw new Error(`api/openapi.yaml has no schema ${name}`)
  found[name] = schemas[name]
  look(schemas[name])
}

function look(node) {
  if (typeof node !== 'object' || node === null) return
  if (typeof node.$ref === 'string') take(node.$ref.split('/').at(-1))
  for (const below of Object.values(node)) look(below)
}

roots.forEach(take)
const sorted = Object.fromEntries(Object.keys(found).sort().map((name) => [name, found[name]]))
writeFileSync(new URL('../src/api/specs.json', import.meta.url), JSON.stringify(sorted, null, 1) + '\n')
