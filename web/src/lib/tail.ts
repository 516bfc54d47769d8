import { onScopeDispose, ref, shallowRef, type Ref } from 'vue'
import { ApiError } from '@/api/client'

/** How much of a text is kept, in characters: beyond most it is cut down to least, at the beginning of a line. */
const most = 2_000_000
const least = 1_500_000

/** cut takes the oldest lines off a text that has become too long. */
export function cut(text: string, limit = most, keep = least): string {
  if (text.length <= limit) return text
  const from = text.indexOf('\n', text.length - keep)
  return from < 0 ? text.slice(-keep) : text.slice(from + 1)
}

export interface Tail {
  text: Ref<string>
  /** It reads. */
  open: Ref<boolean>
  error: Ref<ApiError | undefined>
  /** Begins anew. ask makes the request, and fails with an ApiError. */
  start: (ask: (signal: AbortSignal) => Promise<ReadableStream<Uint8Array> | null>) => Promise<void>
  stop: () => void
}

/** A text that comes bit by bit, and is put together no more often than one can see. */
export function useTail(every = 80): Tail {
  const text = shallowRef('')
  const open = ref(false)
  const error = ref<ApiError>()
  let current: AbortController | undefined
  let pending = ''
  let timer: ReturnType<typeof setTimeout> | undefined

  function show() {
    clearTimeout(timer)
    timer = undefined
    if (pending === '') return
    text.value = cut(text.value + pending)
    pending = ''
  }
  function stop() {
    current?.abort()
    current = undefined
    open.value = false
    show()
  }
  async function start(ask: (signal: AbortSignal) => Promise<ReadableStream<Uint8Array> | null>) {
    stop()
    const mine = (current = new AbortController())
    text.value = pending = ''
    error.value = undefined
    open.value = true
    try {
      const reader = (await ask(mine.signal))?.getReader()
      const decoder = new TextDecoder()
      while (reader) {
        const { done, value } = await reader.read()
        if (mine !== current) return
        pending += decoder.decode(value, { stream: !done })
        if (done) break
        timer ??= setTimeout(show, every)
      }
    } catch (cause) {
      if (mine !== current) return
      error.value = cause instanceof ApiError ? cause : new ApiError(0, cause instanceof Error ? cause.message : String(cause))
    }
    show()
    open.value = false
  }
  onScopeDispose(stop)
  return { text, open, error, start, stop }
}
