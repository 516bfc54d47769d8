// What is lost comes back: the server, the login.

export default {
  async 'the server is killed and started while a release is watched'({ page, world, shoot }) {
    const lines = 40
    await world.makeVersion('shop', '4.0', `for i in $(seq ${lines}); do echo "line $i of $QUICFLOW_TARGET"; sleep 0.3; done`)
    const task = await world.makeTask('shop', '4.0', { strategy: { max_parallel: 12 } })
    await page.goto(`${world.url}/releases/${task.id}`)
    await page.getByText('line 5 of web-01').first().waitFor()
    await world.killServer()
    await page.getByText('The server cannot be reached.').first().waitFor()
    await shoot('release-lost')
    await world.startServer()
    await page.getByText('The server cannot be reached.').waitFor({ state: 'detached' })
    await page.getByText('12 / 12 done').waitFor({ timeout: 90_000 })
    await page.getByText('complete', { exact: true }).waitFor({ timeout: 40_000 })
    await page.getByLabel('Search the log').fill('of web-')
    await page.getByText(`${12 * lines} lines`).waitFor() // all of them, each once
    await page.getByLabel('Search the log').fill('of web-06')
    await page.getByText(`${lines} lines`, { exact: true }).waitFor()
  },

  async 'a login that ends leads back to the same address'({ page, context, world, shoot, logIn }) {
    await world.makeVersion('shop', '6.0', 'echo up')
    const task = await world.makeTask('shop', '6.0')
    const address = `${world.url}/releases/${task.id}?q=line+7&tab=hosts`
    await page.goto(address)
    await page.getByRole('tab', { name: 'Hosts' }).waitFor()
    await context.clearCookies()
    await page.goto(address)
    await page.waitForURL(/\/login\?next=/)
    await logIn()
    await page.waitForURL(address)
    await page.getByRole('tab', { name: 'Hosts', selected: true }).waitFor()
    // In the middle of something, too.
    await context.clearCookies()
    await page.getByRole('tab', { name: 'Plan' }).click()
    await page.getByText('Search or go to').click() // which asks the API
    await page.waitForURL(/\/login\?/)
    await page.getByText('Your login has ended').waitFor()
    await shoot('login-expired')
    await logIn()
    await page.waitForURL(/releases\/.*tab=plan/)
  },
}
