import { describe, expect, it } from 'vitest'
import { at, below, fieldsOf, layerGroups, lostErrors, matches, nodeOf, openGroups, ownErrors, schemaOf, specNames, splitDoc, under, withValue, type Field, type Layer, type Rule, type SpecType } from './schema'

const rule = (path: string, layers: Layer[], group = 'a'): Rule => ({ path, layers, merge: 'replace', expand: true, group, doc: '' })
const field = (of: string, name: string): Field => fieldsOf(schemaOf(of)).find((f) => f.name === name)!

describe('the schemas of the API', () => {
  it('are all known by their kind, without a name of a field in the console', () => {
    const kinds = (of: string, name: string) => `${field(of, name).kind}${field(of, name).item ? ` of ${field(of, name).item!.kind}` : ''}`
    expect(kinds('ScriptSpec', 'install')).toBe('lines')
    expect(kinds('KubernetesSpec', 'manifest')).toBe('lines')
    expect(kinds('ScriptSpec', 'env')).toBe('map of text')
    expect(kinds('ScriptSpec', 'artifacts')).toBe('list of object')
    expect(kinds('ScriptSpec', 'keep_releases')).toBe('number')
    expect(kinds('ContainerSpec', 'privileged')).toBe('switch')
    expect(kinds('ContainerSpec', 'pull_policy')).toBe('select')
    expect(kinds('ContainerSpec', 'command')).toBe('list of text')
    expect(kinds('ContainerSpec', 'ulimits')).toBe('map of object')
    expect(kinds('ContainerSpec', 'restart')).toBe('object')
    expect(kinds('Strategy', 'max_failures')).toBe('text')
    expect(kinds('Strategy', 'waves')).toBe('list of number')
  })
  it('leave nothing to be typed as JSON', () => {
    const walk = (node: { kind: string; schema: object; item?: never }, path: string): string[] => {
      const below = node.kind === 'object' ? fieldsOf(node.schema).flatMap((f) => walk(f as never, `${path}.${f.name}`)) : node.item ? walk(node.item, `${path}[]`) : []
      return node.kind === 'json' ? [path] : below
    }
    for (const name of [...Object.values(specNames), 'Strategy']) expect(walk(nodeOf(schemaOf(name)) as never, name)).toEqual([])
  })
  it('say what counts where nothing is set', () => {
    expect(splitDoc('Program that runs the scripts. Defaults to /bin/sh')).toEqual({ doc: 'Program that runs the scripts', initial: '/bin/sh' })
    expect(splitDoc('Defaults to unless-stopped')).toEqual({ doc: '', initial: 'unless-stopped' })
    expect(splitDoc('Environment of the scripts')).toEqual({ doc: 'Environment of the scripts', initial: '' })
    expect(field('ContainerSpec', 'keep_old')).toMatchObject({ initial: '1' })
  })
  it('put first what an object must have, and keep what a reference says beside itself', () => {
    expect(fieldsOf(schemaOf('Artifact')).slice(0, 2).map((f) => [f.name, f.required])).toEqual([['name', true], ['sha256', true]])
    expect(field('ContainerSpec', 'restart').initial).toBe('unless-stopped')
  })
  it('ask for what they do not know as JSON', () => {
    expect(nodeOf({ type: 'object' }).kind).toBe('json')
    expect(nodeOf({ type: 'array' }).kind).toBe('json')
    expect(nodeOf({}).kind).toBe('json')
  })
})

describe('a layer', () => {
  const rules = [rule('image', ['project'], 'image'), rule('env', ['project', 'version', 'task'], 'image'), rule('resources', ['version'], 'use'), rule('resources.memory', ['version'], 'use'), rule('of a newer server', ['project'])]
  const names = (type: SpecType, layer: Layer) => layerGroups(type, layer, rules).map((g) => `${g.name}: ${g.fields.map((f) => f.name).join(' ')}`)
  it('has the fields that it may set, in the order of the rules, by groups', () => {
    expect(names('container', 'project')).toEqual(['image: image env'])
    expect(names('container', 'version')).toEqual(['image: env', 'use: resources'])
    expect(names('container', 'task')).toEqual(['image: env'])
  })
  it('opens what one begins with, and what is set', () => {
    const groups = ['a', 'b', 'c'].map((name) => ({ name, fields: Array.from({ length: 8 }, (_, i) => ({ ...field('ScriptSpec', 'install'), name: `${name}${i}` })) }))
    expect([...openGroups(groups, {})]).toEqual(['a', 'b'])
    expect([...openGroups(groups, { c1: 'x' })]).toEqual(['a', 'b', 'c'])
    expect([...openGroups(groups.slice(0, 2), {})]).toEqual(['a', 'b'])
  })
})

describe('fields', () => {
  it('are found by name, by what they are and by what is in them', () => {
    expect(matches(field('ScriptSpec', 'health'), 'start_period')).toBe(true)
    expect(matches(field('ScriptSpec', 'interpreter'), 'runs PROGRAM')).toBe(true)
    expect(matches(field('ScriptSpec', 'interpreter'), 'runs nothing')).toBe(false)
  })
  it('are absent where they are not set', () => {
    const before = { a: 1, b: 'x' }
    expect(withValue(before, 'b', '')).toEqual({ a: 1 })
    expect(withValue(before, 'b', undefined)).toEqual({ a: 1 })
    expect(withValue(before, 'a', 0)).toEqual({ a: 0, b: 'x' })
    expect(withValue(before, 'c', false)).toEqual({ a: 1, b: 'x', c: false })
    expect(before).toEqual({ a: 1, b: 'x' })
  })
})

describe('errors', () => {
  const errors = [
    { location: 'body.script.install', message: 'is required' },
    { location: 'body.override.script.env.A', message: 'too long' },
    { location: 'body.script.artifacts[1].sha256', message: 'not a hash' },
    { location: 'body.script', message: 'too large' },
    { location: 'body.name', message: 'taken' },
  ]
  const script = below(errors, 'script')
  it('are found within the configuration and beside it', () => {
    expect(script.map((e) => e.location)).toEqual(['install', 'env.A', 'artifacts.1.sha256', ''])
    expect(at(errors, 'name')).toBe('taken')
    expect(at(errors, 'script')).toBe('too large')
  })
  it('go down to the field that bears them', () => {
    const artifacts = field('ScriptSpec', 'artifacts')
    const own = under(script, 'artifacts')
    expect(ownErrors(artifacts, [{}, {}], own)).toEqual([])
    expect(under(under(own, '1'), 'sha256')).toEqual([{ location: '', message: 'not a hash' }])
  })
  it('are shown where nothing below could bear them', () => {
    expect(ownErrors(field('ScriptSpec', 'artifacts'), [{}], under(script, 'artifacts'))).toEqual(['1.sha256: not a hash'])
    expect(ownErrors(field('ScriptSpec', 'health'), undefined, [{ location: 'http', message: 'no URL' }])).toEqual(['http: no URL'])
    expect(ownErrors(field('ScriptSpec', 'install'), 'x', under(script, 'install'))).toEqual(['is required'])
    expect(lostErrors([{ name: 'a', fields: [field('ScriptSpec', 'install')] }], script).map((e) => e.message)).toEqual(['too long', 'not a hash', 'too large'])
  })
})
