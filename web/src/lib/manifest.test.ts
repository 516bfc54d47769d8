import { parseAllDocuments } from 'yaml'
import { describe, expect, it } from 'vitest'
import type { Environment, Project, Variable, Version } from '@/api/types'
import { document, documents, yamlOf } from './manifest'

const kept = { id: 'x', project_id: 'p', revision: 3, created_at: '2026-01-01T00:00:00Z', updated_at: '2026-01-01T00:00:00Z' }
const project = { ...kept, name: 'shop', type: 'script', description: 'A shop', script: { pre_script: 'set -eu\necho before\n', env: { B: '1' } } } as Project
const version = (name: string) => ({ ...kept, project: 'shop', version: name, status: 'active', script: { install: `echo "${name}"` } }) as Version

describe('YAML of a project', () => {
  it('has what apply takes, and nothing of the server', () => {
    expect(Object.entries(document('Version', version('1.0')))).toEqual([['kind', 'Version'], ['project', 'shop'], ['version', '1.0'], ['status', 'active'], ['script', { install: 'echo "1.0"' }]])
    expect(document('Environment', { ...kept, project: 'shop', name: 'prod', selector: 'env=prod', strategy: { max_failures: '0' } })).toEqual({ kind: 'Environment', project: 'shop', name: 'prod', selector: 'env=prod' })
    expect(document('Environment', { ...kept, project: 'shop', name: 'prod', strategy: { max_failures: '5%', waves: [50, 100] } }).strategy).toEqual({ max_failures: '5%', waves: [50, 100] })
  })
  it('never has the value of a secret', () => {
    const secret = { ...kept, project: 'shop', name: 'TOKEN', secret: true, value: 'must not be here' } as Variable
    expect(document('Variable', secret)).toEqual({ kind: 'Variable', project: 'shop', name: 'TOKEN', secret: true })
    expect(document('Variable', { ...secret, secret: false, value: undefined })).toEqual({ kind: 'Variable', project: 'shop', name: 'TOKEN', value: '' })
  })
  it('is in the order in which things need each other, and reads back as it was', async () => {
    const docs = documents(project, [{ ...kept, project: 'shop', name: 'prod' } as Environment], [{ ...kept, project: 'shop', name: 'A', secret: false, value: 'yes' } as Variable], [version('2.0'), version('1.0')])
    expect(docs.map((d) => `${d.kind} ${d.name ?? d.version}`)).toEqual(['Project shop', 'Environment prod', 'Variable A', 'Version 1.0', 'Version 2.0'])
    const text = await yamlOf(docs)
    expect(text).toContain('pre_script: |\n    set -eu\n    echo before\n')
    expect(text).toContain('version: "1.0"') // a text, not a number
    expect(text).toContain('value: yes')
    expect(parseAllDocuments(text).map((d) => d.toJS())).toEqual(docs)
  })
})
