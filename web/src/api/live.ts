import type { QueryClient, QueryKey } from '@tanstack/vue-query'
import { ref, type Ref } from 'vue'
import { EventStream, type ServerEvent } from './sse'
import type { EventsChanged, EventsHello } from './types'

/** The shortest time between two readings of the same, in ms: of what one looks at, and of lists of much. */
const often = 250
const seldom = 1_000

/** What a topic of GET /api/events makes stale. */
export function staleBy(topic: string): { key: QueryKey; every: number }[] {
  switch (topic) {
    case 'clients':
      return [{ key: ['clients'], every: seldom }, { key: ['client'], every: seldom }, { key: ['overview'], every: seldom }]
    case 'tasks':
      return [{ key: ['tasks'], every: seldom }, { key: ['overview'], every: seldom }]
    case 'jobs':
      return [{ key: ['jobs'], every: seldom }, { key: ['overview'], every: seldom }]
    case 'system':
      return [{ key: ['system'], every: seldom }]
    case 'projects':
      return ['projects', 'project', 'versions', 'environments', 'variables'].map((name) => ({ key: [name], every: seldom }))
    case 'schedules':
      return [{ key: ['schedules'], every: seldom }, { key: ['schedule'], every: seldom }]
  }
  if (!topic.startsWith('task/')) return []
  const id = topic.slice('task/'.length)
  return [
    { key: ['task', id], every: often },
    { key: ['job', id], every: often },
    { key: ['tasks'], every: seldom },
    { key: ['jobs'], every: seldom },
    { key: ['overview'], every: seldom },
    { key: ['installations'], every: seldom },
    { key: ['history'], every: seldom },
    { key: ['schedules'], every: seldom },
    { key: ['schedule'], every: seldom },
  ]
}

interface Reading {
  key: QueryKey
  every: number
  pause: number // until the next may begin
  last: number // began
  busy: boolean
  again: boolean
  timer?: ReturnType<typeof setTimeout>
}

/** Reads again what is stale and looked at: at once, then no more often than it may be, and never twice at a time. */
export class Refresher {
  private readonly keys = new Map<string, Reading>()

  constructor(
    private readonly queries: Pick<QueryClient, 'invalidateQueries' | 'isFetching'>,
    private readonly now: () => number = () => Date.now(),
  ) {}

  /** mark says that what is read under a key has changed. */
  mark(key: QueryKey, every: number): void {
    const name = JSON.stringify(key)
    let k = this.keys.get(name)
    if (!k) {
      k = { key, every, pause: every, last: -Infinity, busy: false, again: false }
      this.keys.set(name, k)
      if (this.keys.size > 1_000) this.forget()
    }
    if (k.busy) {
      k.again = true
      return
    }
    if (k.timer !== undefined) return
    const wait = k.pause - (this.now() - k.last)
    if (wait <= 0) void this.read(name)
    else k.timer = setTimeout(() => void this.read(name), wait)
  }

  private async read(name: string): Promise<void> {
    const k = this.keys.get(name)
    if (!k) return
    k.timer = undefined
    k.busy = true
    k.last = this.now()
    // A request that is under way may have been answered before the change: it is let finish, and followed by another.
    k.again = this.queries.isFetching({ queryKey: k.key }) > 0
    try {
      await this.queries.invalidateQueries({ queryKey: k.key }, { cancelRefetch: false })
    } finally {
      k.busy = false
      // An answer that took long is not asked for again at once.
      k.pause = Math.max(k.every, 3 * (this.now() - k.last))
      if (k.again) this.mark(k.key, k.every)
    }
  }

  private forget(): void {
    for (const [name, k] of this.keys) {
      if (!k.busy && k.timer === undefined && this.now() - k.last > 60_000) this.keys.delete(name)
    }
  }

  stop(): void {
    for (const k of this.keys.values()) clearTimeout(k.timer)
    this.keys.clear()
  }
}

export type LiveState = 'off' | 'connecting' | 'live' | 'lost'

/** The one connection that tells what has changed. */
export class Live {
  readonly state: Ref<LiveState> = ref('off')
  /** Of the server, as it said last; it changes when a new one took over. */
  readonly version: Ref<string> = ref('')
  private stream?: EventStream
  private readonly refresher: Refresher

  constructor(private readonly queries: QueryClient) {
    this.refresher = new Refresher(queries)
  }

  start(): void {
    if (this.stream) return
    this.state.value = 'connecting'
    this.stream = new EventStream({
      url: () => '/api/events',
      onEvents: (events) => events.forEach((e) => this.take(e)),
      onState: (open) => {
        if (!open) this.state.value = 'lost'
      },
      onEnd: () => this.stop(),
    })
  }

  stop(): void {
    this.stream?.close()
    this.stream = undefined
    this.refresher.stop()
    this.state.value = 'off'
  }

  private take(e: ServerEvent): void {
    if (e.name === 'hello') {
      this.version.value = (JSON.parse(e.data) as EventsHello).version
      // Whatever happened while nobody listened was not told.
      void this.queries.invalidateQueries()
      this.state.value = 'live'
      return
    }
    if (e.name !== 'changed') return
    const changed = JSON.parse(e.data) as EventsChanged
    if (changed.all) {
      void this.queries.invalidateQueries(undefined, { cancelRefetch: false })
      return
    }
    const marked = new Set<string>()
    for (const topic of changed.topics) {
      for (const { key, every } of staleBy(topic)) {
        const name = JSON.stringify(key)
        if (!marked.has(name)) this.refresher.mark(key, every)
        marked.add(name)
      }
    }
  }
}
