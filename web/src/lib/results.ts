import type { HostResult } from '@/api/types'

/** One host of a job, as it is listed. */
export interface Row {
  client: string
  command: string
  outcome: string
  error: string
  /** What it printed, or what it gave, as text. */
  text: string
  cut: boolean
  exit?: number
}

interface Output {
  exit_code?: number
  stdout?: string
  stderr?: string
  stdout_truncated?: boolean
  stderr_truncated?: boolean
}

const isOutput = (v: unknown): v is Output => typeof v === 'object' && v !== null && 'stdout' in v && 'stderr' in v

/** red gives what went to stderr as a terminal shows it apart; '' if nothing did. */
export const red = (text = '') => (text ? `\u001b[31m${text}\u001b[0m` : '')

/** rowOf makes a row of a result. */
export function rowOf(r: Pick<HostResult, 'client_id' | 'command_id' | 'outcome'> & { error?: string; result?: unknown; output?: Output }): Row {
  const row: Row = { client: r.client_id, command: r.command_id, outcome: r.outcome, error: r.error ?? '', text: '', cut: false }
  const output = isOutput(r.result) ? r.result : r.output
  if (output) {
    row.text = output.stdout ?? ''
    if (output.stderr) row.text += (row.text && !row.text.endsWith('\n') ? '\n' : '') + red(output.stderr)
    row.cut = output.stdout_truncated === true || output.stderr_truncated === true
    row.exit = output.exit_code
  }
  if (r.result !== undefined && r.result !== null && !isOutput(r.result)) row.text = JSON.stringify(r.result, null, 2)
  return row
}

/** Results in the order in which they came. One that comes again takes the place of the one before. */
export class Results {
  rows: Row[] = []
  private readonly at = new Map<string, number>()

  add(row: Row): void {
    const i = this.at.get(row.client)
    if (i === undefined) {
      this.at.set(row.client, this.rows.length)
      this.rows.push(row)
    } else this.rows[i] = row
  }

  get(client: string): Row | undefined {
    const i = this.at.get(client)
    return i === undefined ? undefined : this.rows[i]
  }
}

/** csv gives rows for a spreadsheet; what could be taken for a formula is quoted as text. */
export function csv(rows: Row[]): string {
  const cell = (v: string) => `"${(/^[=+\-@\t\r]/.test(v) ? `'${v}` : v).replaceAll('"', '""')}"`
  return ['client_id,outcome,exit_code,error,output', ...rows.map((r) => [r.client, r.outcome, r.exit === undefined ? '' : String(r.exit), r.error, r.text].map(cell).join(','))].join('\r\n') + '\r\n'
}
