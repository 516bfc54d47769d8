// The console from end to end: Chromium against a real server with real agents. ONLY=part of a name runs some of the scenarios,
// GO_ON=1 those after one that failed, too; LIST=1 only prints their names.
import { Browser } from './browser.mjs'
import { scenarios } from './scenarios/index.mjs'
import { eventually, World } from './world.mjs'

const only = process.env.ONLY ?? ''
if (process.env.LIST) {
  for (const name of scenarios.keys()) console.log(name)
  process.exit()
}

const world = new World()
const browser = new Browser(world)

/** settle makes what the first scenarios make, where they are left out. */
async function settle() {
  await browser.page.goto(`${world.url}/login`)
  await browser.logIn()
  const { token } = await world.call('POST', '/api/agent-tokens', { uses: 12 })
  for (let i = 1; i <= 12; i++) world.startAgent(`web-${String(i).padStart(2, '0')}`, token, { env: i <= 8 ? 'prod' : 'test', zone: `z${i % 3}` })
  await eventually('the agents are there', async () => (await world.call('GET', '/api/clients?status=online')).total === 12)
  await browser.page.waitForURL(`${world.url}/`)
}

let failed = 0
// Whoever ends this ends what it started.
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => void Promise.allSettled([browser.close(), world.stop()]).then(() => process.exit(1)))
}
try {
  await world.start()
  await browser.open()
  if (!'login'.includes(only)) await settle()
  let n = -1
  for (const [name, scenario] of scenarios) {
    n++
    if (!name.includes(only)) continue
    const began = Date.now()
    try {
      const { page, context, shoot, logIn, choose, value } = browser
      await scenario({ world, page, context, shoot, logIn, choose, value })
      console.log(`ok    ${name} (${((Date.now() - began) / 1000).toFixed(1)} s)`)
    } catch (e) {
      failed++
      console.log(`FAIL  ${name}\n${e.stack}${e.cause ? `\n${e.cause.stack ?? e.cause}` : ''}\nat ${browser.page.url()}`)
      await browser.shootFailure(n)
      if (!process.env.GO_ON) break
    }
  }
} finally {
  await browser.close()
  await world.stop()
}
for (const f of new Set(browser.faults)) console.log(`fault ${f}`)
if (failed > 0 || browser.faults.length > 0) process.exitCode = 1
