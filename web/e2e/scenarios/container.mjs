// What a container prints.
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { eventually } from '../world.mjs'

export default {
  async 'the output of a container is followed'({ page, world, shoot }) {
    // No engine here: the answers about the project and of its output are made up, the output bit by bit.
    let asked, left
    const server = createServer((request, response) => {
      asked = new URL(request.url, 'http://x').searchParams
      response.writeHead(200, { 'Content-Type': 'text/plain; charset=utf-8' })
      let n = 0
      const timer = setInterval(() => response.write(`GET /orders/${++n} 200\r\n`), 100)
      if (!asked.has('follow')) setTimeout(() => response.end(), 450)
      left = new Promise((resolve) => response.on('close', () => (clearInterval(timer), resolve(true))))
    }).listen(0, '127.0.0.1')
    server.unref() // it does not outlive a failure
    await eventually('it listens', () => server.address())
    await world.makeVersion('orders', '1.0', 'echo up')
    const host = 'web-04'
    const task = await world.makeTask('orders', '1.0', { targets: { clients: [host] } })
    await page.route(`**/api/release/projects/${task.project_id}`, async (route) => route.fulfill({ json: { ...await (await route.fetch()).json(), type: 'container' } }))
    await page.route('**/container-logs?*', (route) => route.continue({ url: route.request().url().replace(world.url, `http://127.0.0.1:${server.address().port}`) }))
    await page.goto(`${world.url}/releases/${task.id}?host=${host}`)
    await page.getByRole('tab', { name: 'Container log' }).click()
    await page.waitForURL(/out=container/)
    await page.locator('.xterm-rows').getByText('GET /orders/4 200').waitFor()
    assert.equal(asked.get('tail'), '200')
    await page.getByRole('button', { name: 'Follow' }).click()
    await page.waitForURL(/follow=1/)
    await page.locator('.xterm-rows').getByText('GET /orders/12 200').waitFor()
    await shoot('release-container')
    await page.getByRole('button', { name: 'Stop' }).click()
    assert.ok(await left) // the server knows
    await page.getByRole('button', { name: 'Follow' }).waitFor()
    await page.unroute('**/container-logs?*')
    await page.getByRole('button', { name: 'Read again' }).click() // of the real server
    await page.getByText(/is a script project/).waitFor()
    await shoot('release-container-none')
    await page.unroute(`**/api/release/projects/${task.project_id}`)
    server.close()
  },
}
