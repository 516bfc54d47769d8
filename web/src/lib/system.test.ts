import { describe, expect, it } from 'vitest'
import type { System } from '@/api/types'
import { partsOf } from './system'

const system = (s: Partial<System>) => ({ hubs: [{ node_id: 'a', this: true, sessions: 10, sessions_max: 100 }], agents: [], figures: [], ...s }) as unknown as System
const told = (...args: Parameters<typeof partsOf>) => partsOf(...args).map((p) => `${p.key}:${p.state}`).join(' ')

describe('partsOf', () => {
  it('says what fails, and what is nearly used up', () => {
    expect(told({ database: 'ok', temporal: 'ok' }, system({ disk: { free: 50, size: 100 } }))).toBe('server:works hub:works database:works temporal:works disk:works')
    expect(told({ database: 'failing', temporal: 'ok' }, undefined)).toBe('server:works hub:works database:failing temporal:works')
    expect(told({}, system({ hubs: [{ node_id: 'a', this: true, sessions: 90, sessions_max: 100 }], disk: { free: 9, size: 100 } }))).toBe('server:works hub:full database:works temporal:works disk:full')
  })
})
