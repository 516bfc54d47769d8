import { afterEach, describe, expect, it, vi } from 'vitest'
import { onExpired } from './client'
import { EventParser, EventStream, type ServerEvent } from './sse'

const text = 'event: log\nid: 7\ndata: {"a":1}\n\n: alive\n\ndata: one\r\ndata: two\r\n\r\nevent: nothing\n\ndata:tight\n\n'

describe('EventParser', () => {
  it('puts events together wherever they are cut', () => {
    const whole = new EventParser().feed(text)
    expect(whole).toEqual([
      { name: 'log', id: '7', data: '{"a":1}' }, { name: '', id: '', data: 'one\ntwo' }, { name: '', id: '', data: 'tight' },
    ])
    for (let cut = 0; cut <= text.length; cut++) {
      const p = new EventParser()
      expect([...p.feed(text.slice(0, cut)), ...p.feed(text.slice(cut))]).toEqual(whole)
    }
  })
})

/** A server that gives these answers, one a request. */
function serve(...answers: (() => Response | Promise<Response>)[]) {
  const asked: Headers[] = []
  vi.stubGlobal('fetch', (_: string, init: RequestInit) => {
    asked.push(new Headers(init.headers))
    const answer = answers.shift()
    return answer ? Promise.resolve(answer()) : new Promise(() => undefined)
  })
  return asked
}
const stream = (body: string) => () => new Response(body, { status: 200, headers: { 'Content-Type': 'text/event-stream' } })

describe('EventStream', () => {
  afterEach(() => vi.unstubAllGlobals())

  it('comes back with the last id', async () => {
    const asked = serve(stream('id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\nda'), () => Promise.reject(new TypeError('network')), stream('id: 3\ndata: c\n\n'))
    const got: ServerEvent[] = []
    await new Promise<void>((resolve) => {
      const s = new EventStream({
        url: () => '/x',
        onEvents: (events) => {
          got.push(...events)
          if (got.length === 3) {
            s.close()
            resolve()
          }
        },
      })
    })
    expect(got.map((e) => e.data)).toEqual(['a', 'b', 'c'])
    expect(asked.map((h) => h.get('Last-Event-ID'))).toEqual([null, '2', '2'])
    expect(asked[0]!.get('Accept')).toBe('text/event-stream')
  })

  it('ends where the server says no', async () => {
    serve(() => Response.json({ detail: 'there is no such task' }, { status: 404 }))
    const error = await new Promise((resolve) => new EventStream({ url: () => '/x', onEvents: () => undefined, onEnd: resolve }))
    expect(error).toMatchObject({ status: 404, message: 'there is no such task' })
  })

  it('tells that the login has ended', async () => {
    const told = vi.fn()
    onExpired(told)
    serve(() => Response.json({}, { status: 401 }))
    await new Promise((resolve) => new EventStream({ url: () => '/x', onEvents: () => undefined, onEnd: resolve }))
    expect(told).toHaveBeenCalledOnce()
  })

  it('does not repeat what has a body', async () => {
    const asked = serve(stream('data: a\n\n'), stream('data: b\n\n'))
    const got: string[] = []
    await new Promise((resolve) => new EventStream({ url: () => '/x', init: { method: 'POST', body: '{}' }, onEvents: (e) => got.push(...e.map((x) => x.data)), onEnd: resolve }))
    expect(got).toEqual(['a'])
    expect(asked).toHaveLength(1)
  })
})
