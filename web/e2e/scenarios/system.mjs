// The system page.
import assert from 'node:assert/strict'
import { eventually } from '../world.mjs'

export default {
  async 'the system at a glance'({ page, world, shoot }) {
    await page.goto(`${world.url}/system`)
    await page.getByText('Every part works.').waitFor()
    await page.getByText(/^SQLite 3/).waitFor()
    await page.locator('canvas').nth(7).waitFor({ timeout: 30_000 })
    await shoot('system')
    const online = page.locator('tbody tr').last().locator('td').last()
    assert.equal(await online.innerText(), '12')
    await world.stopAgent('web-12')
    await eventually('the page says so', async () => (await online.innerText()) === '11') // without a reload
    world.startAgent('web-12')
    await page.locator('canvas').first().hover()
    await page.locator('main').evaluate((e) => e.scrollTo(0, e.scrollHeight))
    await shoot('system-below')
    await page.route('**/health', (route) => route.fulfill({ json: { status: 'degraded', version: 'x', checks: { database: 'ok', temporal: 'failing' } } }))
    await page.reload()
    await page.getByText('1 part needs a look').waitFor()
    await page.locator('canvas').nth(7).waitFor()
    await shoot('system-failing')
    await page.unroute('**/health')
    await page.route('**/api/system', (route) => route.fulfill({ status: 500, json: { detail: 'the database is away' } }))
    await page.reload()
    await page.getByText('the database is away').waitFor()
    await shoot('system-error')
    await page.unroute('**/api/system')
    await eventually('web-12 is back', async () => (await world.call('GET', '/api/clients?status=online')).total === 12)
  },
}
