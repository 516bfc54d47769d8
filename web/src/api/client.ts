import createClient, { type Middleware } from 'openapi-fetch'
import type { paths } from './schema'
import type { Problem } from './types'

/** What the API says where it does not do what it was asked for. status is 0 where it could not be reached. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    /** What is wrong with which field of the request, such as "body.command". */
    readonly fields: { location: string; message: string }[] = [],
  ) {
    super(message)
  }
}

/** isStatus says whether an error is an answer of that status. */
export const isStatus = (e: unknown, status: number): boolean => e instanceof ApiError && e.status === status

type Listener = () => void
const expired = new Set<Listener>()

/** Calls f whenever the API says that there is no login. */
export function onExpired(f: Listener): void {
  expired.add(f)
}

/** Says so, for requests that are not made by api. */
export function sessionExpired(): void {
  for (const f of expired) f()
}

const watchSession: Middleware = {
  onResponse({ response }) {
    if (response.status === 401) sessionExpired()
  },
}

export const api = createClient<paths>({ baseUrl: '/' , querySerializer: { array: { style: 'form', explode: false } } })
api.use(watchSession)

/** problem makes an error of an answer that is not what was asked for. */
export function problem(status: number, body: unknown): ApiError {
  const p = (typeof body === 'object' && body !== null ? body : {}) as Partial<Problem>
  const fields = (p.errors ?? []).map((e) => ({ location: e.location ?? '', message: e.message ?? '' }))
  const message = fields.length > 0 ? fields.map((f) => f.message).join('; ') : (p.detail ?? p.title ?? '')
  return new ApiError(status, message || `HTTP ${status}`, fields)
}

/** The data of an answer, or an ApiError. */
export async function take<T>(request: Promise<{ data?: T; error?: unknown; response: Response }>): Promise<T> {
  let answer
  try {
    answer = await request
  } catch (cause) {
    if (cause instanceof DOMException && cause.name === 'AbortError') throw cause
    throw new ApiError(0, cause instanceof Error ? cause.message : String(cause))
  }
  if (!answer.response.ok) throw problem(answer.response.status, answer.error)
  return answer.data as T
}
