// Agents join, are seen, and are found.
import assert from 'node:assert/strict'

export default {
  async 'agents join with the command and appear'({ page, world, shoot }) {
    await page.goto(`${world.url}/fleet`)
    await page.getByText('No agents yet').waitFor()
    await page.getByLabel('Agents', { exact: true }).fill('12')
    await page.getByRole('button', { name: 'Make a token' }).click()
    const line = await page.locator('pre.line').innerText()
    await shoot('fleet-join')
    assert.match(line, new RegExp(`^QUIC_JOIN_TOKEN=\\S+ quic-client -s 127\\.0\\.0\\.1:${world.quic.split(':')[1]} -i \\$\\(hostname\\)$`))
    const token = line.split(/[= ]/)[1]
    for (let i = 1; i <= 12; i++) {
      world.startAgent(`web-${String(i).padStart(2, '0')}`, token, { env: i <= 8 ? 'prod' : 'test', zone: `z${i % 3}`, port: String(18100 + i) })
    }
    await page.getByText('12 of 12 online').waitFor() // without a reload
    await page.getByRole('link', { name: 'web-12' }).waitFor()
    await shoot('fleet')
  },

  async 'the fleet is filtered, and the filter is in the address'({ page, world, shoot }) {
    await page.goto(`${world.url}/fleet?selector=env%3Dprod`)
    await page.getByText('8 agents').waitFor()
    await page.getByRole('button', { name: 'Save this filter' }).click()
    await page.getByLabel('Name of the filter').fill('production')
    await page.getByRole('button', { name: 'Save', exact: true }).click()
    await page.getByRole('button', { name: 'Show all' }).click()
    await page.getByText('12 agents').waitFor()
    await page.getByRole('button', { name: 'production' , exact: true }).click()
    await page.waitForURL(/\/fleet\?selector=env(%3D|=)prod$/)
    await page.goto(`${world.url}/fleet?selector=a+b`)
    await page.getByRole('alert').waitFor()
    await shoot('fleet-wrong-selector')
    await page.goto(`${world.url}/fleet?q=nobody`)
    await page.getByText('No agent matches').waitFor()
    await world.stopAgent('web-12')
    await page.goto(`${world.url}/fleet?status=offline`)
    await page.getByRole('link', { name: 'web-12' }).waitFor()
    world.startAgent('web-12')
    await page.getByText('No agent matches').waitFor() // it left the list when it came back
  },
}
