import { describe, expect, it } from 'vitest'
import { canaryOf, defaultsOf, draftOf, emptyDraft, hostsOf, onceKey, percentOf, problemsAt, problemsBeside, taskOf, wavesOf } from './newtask'

const draft = (d: object = {}) => ({ ...emptyDraft(), project: 'shop', version: '2.0', ...d })

describe('taskOf', () => {
  it('says nothing of what was left empty: the environment or the defaults say it', () => {
    expect(taskOf(draft(), 'script', 12)).toEqual({ project: 'shop', version: '2.0', action: 'deploy' })
  })
  it('says all that was typed', () => {
    const d = draft({
      environment: 'prod', by: 'clients', clients: 'web-1\nweb-2, web-1', canary: 'own', size: 20, soak: ' 10m ', promote: 'manual', canaryFailures: '1', waves: '25, 50 100', parallel: 7, failures: '10%',
      onFailure: 'rollback', offline: 'fail', override: { env: { A: 'b' } },
    })
    expect(taskOf(d, 'script', 12)).toEqual({
      project: 'shop', version: '2.0', action: 'deploy', environment: 'prod', targets: { clients: ['web-1', 'web-2'] },
      strategy: { canary: { percent: 20, soak: '10m', promote: 'manual', max_failures: '1' }, waves: [25, 50, 100], max_parallel: 7, max_failures: '10%', on_failure: 'rollback', offline: 'fail' },
      override: { script: { env: { A: 'b' } } },
    })
  })
  it('neither names a version nor overrides anything where it uninstalls', () => {
    expect(taskOf(draft({ action: 'uninstall', selector: '*', override: { timeout: '1m' } }), 'script', 1)).toEqual({ project: 'shop', action: 'uninstall', targets: { selector: '*' } })
  })
  it("turns the environment's canary off", () => {
    expect(taskOf(draft({ canary: 'none' }), 'script', 1).strategy).toEqual({ canary: { percent: 0 } })
  })
  it('comes back as the draft of a schedule', () => {
    const d = draft({ selector: 'env=prod', canary: 'own', size: 12.5, soak: '1m', waves: '50', failures: '3', override: { env: { A: 'b' }, timeout: '2m' } })
    const back = draftOf(taskOf(d, 'script', 8))
    expect(back).toEqual(d)
    // What was given for every type by another client is shown where it counts.
    expect(draftOf({ project: 'shop', version: '1', action: 'deploy', override: { env: { A: '1', B: '2' }, timeout: '5m', script: { env: { B: '3' } } } }).override).toEqual({ env: { A: '1', B: '3' }, timeout: '5m' })
  })
})

describe('the size of a canary', () => {
  it('in hosts is a share of which the server makes exactly that many', () => {
    for (const total of [1, 2, 3, 7, 12, 99, 1000, 33_333, 100_000]) {
      for (let n = 1; n <= total; n += Math.max(1, Math.floor(total / 50))) expect(hostsOf(percentOf(n, total), total)).toBe(n)
    }
  })
  it('is one host at least', () => {
    expect(hostsOf(0.1, 10)).toBe(1)
    expect(hostsOf(0, 10)).toBe(0)
  })
})

it('wavesOf reads shares and refuses words', () => {
  expect(wavesOf('25%, 50%;100')).toEqual([25, 50, 100])
  expect(wavesOf('')).toEqual([])
  expect(wavesOf('half')).toBeUndefined()
})

it('defaultsOf prefers what the environment says', () => {
  expect(defaultsOf(undefined)).toMatchObject({ canary: undefined, waves: '100', parallel: 100, failures: '0', onFailure: 'stop', offline: 'skip' })
  expect(defaultsOf({ max_parallel: 7, canary: { percent: 10 }, waves: [50] })).toMatchObject({ canary: { percent: 10 }, waves: '50', parallel: 7 })
  expect(defaultsOf({ canary: { percent: 0 } }).canary).toBeUndefined()
})

it('canaryOf is the own one, that of the environment, or none', () => {
  const environment = defaultsOf({ canary: { percent: 10, soak: '5m', promote: 'manual' } })
  expect(canaryOf(draft(), environment)).toMatchObject({ soak: '5m', promote: 'manual' })
  expect(canaryOf(draft({ canary: 'own', soak: ' 1m ' }), environment)).toEqual({ soak: '1m', promote: 'auto' })
  expect(canaryOf(draft({ canary: 'none' }), environment)).toBeUndefined()
  expect(canaryOf(draft(), defaultsOf(undefined))).toBeUndefined()
})

it('what is wrong is told at its place, of a task and of a schedule alike', () => {
  const fields = [{ location: 'body.task.strategy.canary.soak', message: 'too long' }, { location: 'body.name', message: 'taken' }, { location: 'body.elsewhere', message: '?' }]
  expect(problemsAt(fields, 'strategy.canary')).toBe('')
  expect(problemsAt(fields, 'strategy.canary', true)).toBe('too long')
  expect(problemsAt(fields, 'name')).toBe('taken')
  expect(problemsBeside(fields, ['strategy.canary', 'name'])).toEqual([fields[2]])
})

it('a key is for one request', () => {
  const first = onceKey(undefined, 'a')
  expect(onceKey(first, 'a')).toBe(first)
  expect(onceKey(first, 'b').value).not.toBe(first.value)
  expect(first.value).toMatch(/^[0-9a-f]{32}$/)
})
