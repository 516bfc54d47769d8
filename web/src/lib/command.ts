import type { BatchJob } from '@/api/types'

/** The commands that every agent has. What an agent has of its own can be typed in. */
export interface Kind {
  type: string
  /** An example of a payload; "" where a line for the shell is asked for. */
  payload: string
}

export const kinds: Kind[] = [
  { type: 'exec_shell', payload: '' },
  { type: 'system.info', payload: '{}' },
  { type: 'system.collect_info', payload: '{}' },
  { type: 'process.list', payload: '{}' },
  { type: 'container.list', payload: '{}' },
  { type: 'container.logs', payload: '{"container": ""}' },
]

/** readPayload gives an object of what was typed, or says what is wrong with it. */
export function readPayload(text: string): { value?: Record<string, unknown>; problem?: string } {
  if (text.trim() === '') return { value: {} }
  try {
    const value: unknown = JSON.parse(text)
    if (value === null || typeof value !== 'object' || Array.isArray(value)) return { problem: 'object' }
    return { value: value as Record<string, unknown> }
  } catch (e) {
    return { problem: (e as Error).message }
  }
}

/** lineOf gives a command on one line: what the shell was given, or the type and its payload. */
export function lineOf(job: Pick<BatchJob, 'command_type' | 'payload'>): string {
  const payload = job.payload as { command?: string } | undefined
  if (job.command_type === 'exec_shell') return payload?.command ?? ''
  return `${job.command_type} ${payload && Object.keys(payload).length > 0 ? JSON.stringify(payload) : ''}`
}

/** idsOf gives the ids in what was typed or pasted: with commas, blanks or lines between them. */
export const idsOf = (text: string) => [...new Set(text.split(/[\s,;]+/).filter(Boolean))]
