import { nextTick, onBeforeUnmount, onMounted, ref, watch, type Ref } from 'vue'
import { api, take, type ApiError } from '@/api/client'
import { EventStream, type ServerEvent } from '@/api/sse'
import type { LogEnd, LogGap, LogLine, LogPage } from '@/api/types'
import { LogBuffer, matcher, Picked, type Line } from '@/lib/logbuffer'

/** Which lines of which log. */
export interface Wanted {
  kind: 'task' | 'job'
  id: string
  /** Only of this host. */
  client?: string
  search: string
  stream: '' | 'stdout' | 'stderr'
  /** The sequence number of a line to show. */
  at?: number
}

/** How many records before the end, or before the line to show, it begins. */
const atFirst = 2_000
/** How many records one goes back at a time. */
const earlier = 20_000

/** What shows the lines. */
interface View {
  /** New ones were painted, some of the oldest may be gone. */
  came: (added: number, gone: number) => void
  /** All are painted anew: of another log, or by another filter. */
  anew: (other: boolean) => void
}

/** useLines writes the lines of a log into rows, live, and tells the view of it. */
export function useLines(wanted: Wanted, rows: Ref<Line[]>, view: View) {
  const from = ref(0)
  const open = ref(false)
  const end = ref<LogEnd>()
  const failure = ref<ApiError>()
  let buffer = new LogBuffer()
  let picked = new Picked(buffer)
  let source: EventStream | undefined
  let openings = 0 // so that a late answer is not taken for that of a newer one
  let pending: ServerEvent[] = []
  let timer: ReturnType<typeof setTimeout> | undefined

  /** first gives the record after which it begins. */
  async function first(): Promise<number> {
    const page = (wanted.kind === 'task'
      ? await take(api.GET('/api/release/tasks/{task_id}/logs', { params: { path: { task_id: wanted.id }, query: { limit: 1 } } }))
      : await take(api.GET('/api/batch/jobs/{job_id}/logs', { params: { path: { job_id: wanted.id }, query: { limit: 1 } } }))) as LogPage
    if (wanted.client) return 0 // few enough, and who knows where they are
    return Math.max(0, (wanted.at ? Math.min(wanted.at, page.head) : page.head) - atFirst)
  }
  async function start(after?: number) {
    const mine = ++openings
    stop()
    buffer = new LogBuffer()
    filter(true)
    end.value = failure.value = undefined
    try {
      after ??= await first()
    } catch (e) {
      if (mine === openings) failure.value = e as ApiError
      return
    }
    if (mine !== openings) return
    from.value = after
    const path = wanted.kind === 'task' ? `/api/release/tasks/${encodeURIComponent(wanted.id)}/logs` : `/api/batch/jobs/${encodeURIComponent(wanted.id)}/logs`
    const query = new URLSearchParams({ after: String(after) })
    if (wanted.client) query.set('client', wanted.client)
    source = new EventStream({
      url: () => `${path}?${query.toString()}`,
      onState: (is) => (open.value = is),
      onEvents: (events) => {
        pending.push(...events)
        timer ??= setTimeout(apply, 50) // twenty times a second is enough to read, and leaves time for the rest
      },
      onEnd: (e) => {
        open.value = false
        failure.value = e
      },
    })
  }
  function stop() {
    source?.close()
    source = undefined
    clearTimeout(timer)
    timer = undefined
    pending = []
    open.value = false
  }

  function apply() {
    timer = undefined
    for (const e of pending) {
      if (e.name === 'log') buffer.add(JSON.parse(e.data) as LogLine)
      else if (e.name === 'gap') {
        const gap = JSON.parse(e.data) as LogGap
        buffer.gap(gap.from, gap.to)
      } else if (e.name === 'end') {
        end.value = JSON.parse(e.data) as LogEnd
        source?.close()
        open.value = false
      }
    }
    pending = []
    const { added, gone } = picked.update()
    rows.value = picked.lines.slice()
    void nextTick(() => view.came(added, gone))
  }
  function filter(other: boolean) {
    picked = new Picked(buffer, matcher({ search: wanted.search, stream: wanted.stream, client: '' }))
    rows.value = picked.lines.slice()
    void nextTick(() => view.anew(other))
  }

  watch(() => [wanted.kind, wanted.id, wanted.client], () => void start())
  watch(() => [wanted.search, wanted.stream], () => filter(false))
  onMounted(() => void start())
  onBeforeUnmount(() => {
    openings++
    stop()
  })
  return {
    /** The record after which it begins. */
    from,
    /** Whether the connection stands. */
    open,
    /** What the server said at the end; undefined while there may be more. */
    end,
    /** Why it cannot be read. */
    failure,
    /** back begins anew, further back. */
    back: () => void start(Math.max(0, from.value - earlier)),
  }
}
