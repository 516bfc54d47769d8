// Measures what a person would feel, and prints it. Not a test: numbers depend on the machine. The fleet of 10,000 and the
// release of 100,000 hosts are answers that this makes up; the log of 1,000 lines a second is a real agent's.
import { gzipSync } from 'node:zlib'
import { chromium } from 'playwright-core'
import { eventually, World } from './world.mjs'

const world = new World()
let browser
const print = (what, value) => console.log(`${what.padEnd(72)} ${value}`)
/** trace does something, and gives the tasks of the page's main thread meanwhile: how long they took, and how much of it was work. */
async function trace(p, what) {
  await browser.startTracing(p, { categories: ['toplevel', 'devtools.timeline', 'disabled-by-default-devtools.timeline', '__metadata'] })
  try {
    await what()
  } finally {
    var { traceEvents } = JSON.parse((await browser.stopTracing()).toString())
  }
  const mains = new Set(traceEvents.filter((e) => e.name === 'thread_name' && e.args.name === 'CrRendererMain').map((e) => `${e.pid}/${e.tid}`))
  const tasks = traceEvents.filter((e) => /RunTask/.test(e.name) && e.dur && mains.has(`${e.pid}/${e.tid}`))
  const max = (of) => Math.round(Math.max(0, ...tasks.map(of)) / 1000)
  const over = tasks.filter((e) => (e.tdur ?? e.dur) > 50_000).length
  if (process.env.VERBOSE) {
    for (const task of tasks.filter((e) => e.dur > 40_000)) {
      const inside = traceEvents.filter((e) => e !== task && e.pid === task.pid && e.tid === task.tid && e.dur > 4_000 && e.ts >= task.ts && e.ts + e.dur <= task.ts + task.dur)
      console.log(`  ${Math.round(task.dur / 1000)} ms: ${inside.sort((a, b) => b.dur - a.dur).slice(0, 8).map((e) => `${e.name} ${Math.round(e.dur / 1000)} ${e.args?.data?.functionName ?? ''} ${e.args?.data?.url?.split('/').at(-1) ?? ''}`).join('; ')}`)
    }
  }
  return `longest task ${max((e) => e.tdur ?? 0)} ms of work (${max((e) => e.dur)} ms by the clock), ${over} with more than 50 ms of work`
}

try {
  await world.start()
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] })
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } })

  let scripts = 0
  let styles = 0
  const page = await context.newPage()
  page.on('response', async (r) => {
    if (!r.url().includes('/assets/')) return
    const size = gzipSync(await r.body().catch(() => Buffer.alloc(0)), { level: 9 }).length
    if (r.url().endsWith('.js')) scripts += size
    if (r.url().endsWith('.css')) styles += size
  })
  await page.goto(`${world.url}/login`)
  await page.getByLabel('API token').waitFor()
  await page.waitForLoadState('networkidle')
  const login = scripts
  await page.getByLabel('API token').fill(world.token)
  await page.getByRole('button', { name: 'Log in' }).click()
  await page.getByText('No agents yet').waitFor()
  await page.waitForTimeout(1000)
  print('first load, JavaScript, gzip: login', `${(login / 1000).toFixed(0)} kB`)
  print('first load, JavaScript, gzip: login and overview', `${(scripts / 1000).toFixed(0)} kB, and ${(styles / 1000).toFixed(0)} kB of CSS`)

  // A fleet of 10,000.
  const total = 10_000
  const client = (i) => ({ client_id: `host-${String(i).padStart(5, '0')}`, online: true, status: i % 50 ? 'online' : 'offline', labels: { env: 'prod', zone: `z${i % 9}`, rack: `r${i % 40}` }, hostname: `host-${i}.example`, os: 'linux', arch: 'amd64', agent_version: '1.0', node_id: 'n', address: '10.0.0.1:1', joined_at: '2026-01-01T00:00:00Z', last_seen_at: '2026-01-01T00:00:00Z' })
  await page.route('**/api/clients?*', (route) => {
    const q = new URL(route.request().url()).searchParams
    const from = Number(q.get('offset') ?? 0)
    const n = Math.min(Number(q.get('limit')), total - from)
    return route.fulfill({ json: { total, clients: Array.from({ length: n }, (_, i) => client(from + i)) } })
  })
  await page.getByRole('link', { name: 'Fleet' }).click()
  await page.getByText('host-00003', { exact: true }).waitFor()
  let frames
  const scroll = await trace(page, async () => {
    frames = await page.evaluate(() => new Promise((resolve) => {
    const el = document.querySelector('.rows')
    const times = []
    let last = performance.now()
    let n = 0
    const step = (now) => {
      times.push(now - last)
      last = now
      el.scrollTop += 320
      if (++n < 300) requestAnimationFrame(step)
      else resolve({ n, max: Math.round(Math.max(...times)), median: Math.round(times.sort((a, b) => a - b)[n >> 1]) })
    }
    requestAnimationFrame(step)
    }))
  })
  print('10,000 agents, scrolled through 300 frames', `${scroll}; a frame ${frames.median} ms`)
  await page.unroute('**/api/clients?*')

  // A release of 100,000 hosts.
  const { token } = await world.call('POST', '/api/agent-tokens', { uses: 1 })
  world.startAgent('one', token)
  await eventually('the agent is there', async () => (await world.call('GET', '/api/clients?status=online')).total === 1)
  await world.makeVersion('big', '1.0', 'for i in $(seq 24); do echo $i; sleep 0.5; done')
  const task = await world.makeTask('big', '1.0')
  const size = 100_000
  let done = 0
  await page.route('**/grid', (route) => {
    done = Math.min(size, done + 5000)
    const states = 's'.repeat(done) + 'r'.repeat(Math.min(5000, size - done)) + 'p'.repeat(Math.max(0, size - done - 5000))
    return route.fulfill({ json: { states, waves: [{ number: 0, size: 1000, canary: true }, { number: 1, size: 99_000 }], rate: 100 } })
  })
  const opened = await trace(page, async () => {
    await page.goto(`${world.url}/releases/${task.id}`)
    await page.locator('canvas').waitFor()
    await page.waitForTimeout(500)
  })
  print('a release of 100,000 hosts, opened: the page loads, all cells are drawn', opened)
  const before = done
  const grid = await trace(page, async () => {
    await eventually('the release is done', async () => (await world.task(task.id)).finished_at)
    await page.waitForTimeout(500)
  })
  print(`100,000 hosts on the canvas, ${(done - before) / 5000} changes of 5,000`, grid)
  await page.unroute('**/grid')

  // A log of 1,000 lines a second.
  await world.makeVersion('loud', '1.0', 'for s in $(seq 10); do seq -f "line %05.0f of a log that is written rather fast, as some programs do" 1000; sleep 1; done')
  const loud = await world.makeTask('loud', '1.0')
  await page.goto(`${world.url}/releases/${loud.id}`)
  await page.getByLabel('Search the log').waitFor() // the page itself was measured above
  const log = await trace(page, () => page.getByText('10,001 lines').or(page.getByText('10,000 lines')).waitFor({ timeout: 60_000 }))
  print('10 s of 1,000 lines a second', log)
  const search = await trace(page, async () => {
    await page.getByLabel('Search the log').fill('line 00777')
    await page.getByText('10 lines', { exact: true }).waitFor()
  })
  print('a search in 10,000 lines', search)
} finally {
  await browser?.close()
  await world.stop()
}
