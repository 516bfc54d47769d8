import { computed, onBeforeUnmount, onMounted, ref, shallowRef } from 'vue'
import type { ApiError } from '@/api/client'
import { EventStream } from '@/api/sse'
import type { HostResult, JobCompleteEvent, JobProgressEvent } from '@/api/types'
import { Results, rowOf, type Row } from '@/lib/results'

/** useResults is the results of a job, first finished first, over a connection that resumes. ended is called as the job has ended. */
export function useResults(job: string, ended: () => void) {
  const results = new Results()
  const rows = shallowRef<Row[]>([])
  const status = ref('')
  const counts = shallowRef<object>()
  const error = ref<ApiError>()
  let connection: EventStream | undefined
  let timer: ReturnType<typeof setTimeout> | undefined
  const paint = () => {
    timer ??= setTimeout(() => {
      timer = undefined
      rows.value = results.rows.slice()
    }, 80)
  }
  onMounted(() => {
    connection = new EventStream({
      url: () => `/api/batch/jobs/${encodeURIComponent(job)}/stream?progress=true`,
      onEvents: (events) => {
        for (const e of events) {
          const event = JSON.parse(e.data) as HostResult | JobProgressEvent | JobCompleteEvent | { type: 'job' }
          if (event.type === 'result') results.add(rowOf(event as never))
          else if (event.type === 'progress') {
            counts.value = event.counts
            status.value = event.status
          } else if (event.type === 'complete') {
            status.value = event.status
            connection?.close()
            ended()
          }
        }
        paint()
      },
      onEnd: (e) => (error.value = e),
    })
  })
  onBeforeUnmount(() => {
    connection?.close()
    clearTimeout(timer)
  })
  return {
    rows,
    /** What the connection said last; '' and undefined before it said something. */
    status,
    counts,
    /** Why there will be no more. */
    error,
    /** How many there are of each outcome. */
    outcomes: computed(() => {
      const n: Record<string, number> = {}
      for (const r of rows.value) n[r.outcome] = (n[r.outcome] ?? 0) + 1
      return Object.entries(n)
    }),
    /** of gives the result of a host, as far as it is among the rows. */
    of: (host: string) => (rows.value ? results.get(host) : undefined),
  }
}
