import { ApiError, problem, sessionExpired } from './client'

/** One Server-Sent Event. */
export interface ServerEvent {
  name: string
  id: string
  data: string
}

/** Puts events together from the pieces that come over the network. */
export class EventParser {
  private rest = ''
  private event: ServerEvent = { name: '', id: '', data: '' }
  private hasData = false

  /** feed gives the events that end within text. */
  feed(text: string): ServerEvent[] {
    const events: ServerEvent[] = []
    this.rest += text
    let from = 0
    for (;;) {
      const end = this.rest.indexOf('\n', from)
      if (end < 0) break
      const line = this.rest.slice(from, this.rest[end - 1] === '\r' ? end - 1 : end)
      from = end + 1
      if (line === '') {
        if (this.hasData) events.push(this.event)
        this.event = { name: '', id: '', data: '' }
        this.hasData = false
        continue
      }
      const colon = line.indexOf(':')
      const field = colon < 0 ? line : line.slice(0, colon)
      const value = colon < 0 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1)
      if (field === 'event') this.event.name = value
      else if (field === 'id') this.event.id = value
      else if (field === 'data') {
        this.event.data = this.hasData ? this.event.data + '\n' + value : value
        this.hasData = true
      }
    }
    this.rest = this.rest.slice(from)
    return events
  }
}

export interface StreamOptions {
  /** The address, for the attempt that follows the event with this id ("" at first). */
  url: (lastID: string) => string
  /** Further headers and a body, if it is no GET. A stream with a body is opened once and never again. */
  init?: RequestInit
  /** All events that came together. */
  onEvents: (events: ServerEvent[]) => void
  /** The connection stands, or not. */
  onState?: (open: boolean) => void
  /** It is over for good: the server said no, or onEvents called close. error is undefined where it ended well. */
  onEnd?: (error?: ApiError) => void
}

/** How long a stream may be silent, in ms; servers comment every 15 s. */
const silence = 40_000
const firstPause = 300
const longestPause = 5_000

/** Reads a stream of events, and comes back with the last id whenever it is cut off, until close. */
export class EventStream {
  private readonly stop = new AbortController()
  private lastID = ''
  private pause = firstPause
  private closed = false

  constructor(private readonly options: StreamOptions) {
    void this.run()
  }

  /** The connection ends, and nothing more is told. */
  close(): void {
    this.closed = true
    this.stop.abort()
  }

  private async run(): Promise<void> {
    while (!this.closed) {
      const error = await this.read()
      if (this.closed) return
      this.options.onState?.(false)
      const again = !this.options.init?.body && (error === undefined || error.status === 0 || error.status >= 500 || error.status === 429)
      if (!again) {
        if (error?.status === 401) sessionExpired()
        this.closed = true
        this.options.onEnd?.(error)
        return
      }
      await this.wait(this.pause * (0.75 + Math.random() / 2))
      this.pause = Math.min(this.pause * 2, longestPause)
    }
  }

  /** read reads one connection to its end. */
  private async read(): Promise<ApiError | undefined> {
    const connection = new AbortController()
    const end = () => connection.abort()
    this.stop.signal.addEventListener('abort', end)
    let timer: ReturnType<typeof setTimeout> | undefined
    const heard = () => {
      clearTimeout(timer)
      timer = setTimeout(end, silence)
    }
    try {
      heard()
      const headers = new Headers(this.options.init?.headers)
      headers.set('Accept', 'text/event-stream')
      if (this.lastID !== '') headers.set('Last-Event-ID', this.lastID)
      const response = await fetch(this.options.url(this.lastID), { ...this.options.init, headers, signal: connection.signal, cache: 'no-store' })
      if (!response.ok || !response.body) {
        let body: unknown
        try {
          body = await response.json()
        } catch {
          body = undefined
        }
        return problem(response.status, body)
      }
      this.options.onState?.(true)
      const reader = response.body.pipeThrough(new TextDecoderStream() as unknown as ReadableWritablePair<string, Uint8Array>).getReader()
      const parser = new EventParser()
      for (;;) {
        const { done, value } = await reader.read()
        if (done) return undefined
        heard()
        const events = parser.feed(value)
        if (events.length === 0) continue
        this.pause = firstPause
        for (const e of events) if (e.id !== '') this.lastID = e.id
        this.options.onEvents(events)
        if (this.closed) return undefined
      }
    } catch (cause) {
      return new ApiError(0, cause instanceof Error ? cause.message : String(cause))
    } finally {
      clearTimeout(timer)
      this.stop.signal.removeEventListener('abort', end)
    }
  }

  private wait(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(done, ms)
      const signal = this.stop.signal
      function done() {
        clearTimeout(timer)
        signal.removeEventListener('abort', done)
        resolve()
      }
      signal.addEventListener('abort', done)
    })
  }
}
