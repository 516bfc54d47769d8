import { defineStore } from 'pinia'
import type { ApiError } from '@/api/client'
import { EventStream } from '@/api/sse'
import type { components } from '@/api/schema'
import type { JobStartEvent } from '@/api/types'

/** Commands that end with this page: their streams are held open here, and who closes the page cancels them. */
export const useRuns = defineStore('runs', () => {
  const open = new Map<string, EventStream>()

  /** stream starts a command that lives as long as its connection, and gives the id of its job. */
  function stream(body: components['schemas']['MultiCommand']): Promise<string> {
    return new Promise((resolve, reject) => {
      let id = ''
      const connection = new EventStream({
        url: () => '/api/command/stream?cancel_on_disconnect=true&no_results=true',
        init: { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) },
        onEvents: (events) => {
          for (const e of events) {
            const event = JSON.parse(e.data) as JobStartEvent | { type: 'complete' }
            if (event.type === 'job') {
              id = event.job_id
              open.set(id, connection)
              resolve(id)
            } else if (event.type === 'complete') {
              connection.close()
              open.delete(id)
            }
          }
        },
        onEnd: (error?: ApiError) => {
          open.delete(id)
          if (id === '') reject(error ?? new Error('the stream ended before it began'))
        },
      })
    })
  }
  /** held says whether a job is cancelled when this page is closed. */
  const held = (id: string) => open.has(id)
  return { stream, held }
})
