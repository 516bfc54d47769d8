// Commands: as a batch, and as a stream.
import assert from 'node:assert/strict'

export default {
  async 'a command runs on those that were picked'({ page, world, shoot }) {
    await page.goto(`${world.url}/fleet`)
    for (const id of ['web-01', 'web-02', 'web-03']) await page.getByLabel(id, { exact: true }).click()
    await shoot('fleet-picked')
    await page.getByRole('button', { name: 'Run a command on 3 agents' }).click()
    await page.waitForURL(/commands\/new\?clients=/)
    await page.getByLabel('Line for the shell').fill('printf "\\033[32mready\\033[0m on $(hostname)\\n"; test "$QUICFLOW_TARGET" != web-03 || { echo "no space left on device" >&2; exit 3; }')
    await page.getByText('picks 3 hosts').waitFor()
    await shoot('command-new')
    await page.getByRole('button', { name: 'Run on 3 hosts' }).click()
    await page.waitForURL(/commands\/[0-9a-f-]+/)
    await page.getByText('partly done').waitFor()
    await page.getByRole('button', { name: /web-01/ }).click()
    await page.waitForURL(/host=web-01/)
    await page.locator('.xterm-rows').getByText(/ready on/).waitFor()
    await shoot('command')
    await page.getByRole('tab', { name: 'Log' }).click()
    await page.getByText(/ready on/).first().waitFor()
    await page.getByRole('button', { name: 'Retry what failed' }).click()
    await page.getByText('0 / 1 done').waitFor()
  },

  async 'a batch is watched and cancelled'({ page, world, shoot }) {
    await page.goto(`${world.url}/commands/new?selector=*`)
    await page.getByLabel('Line for the shell').fill('test "$QUICFLOW_TARGET" = web-05 && echo first || sleep 120')
    await page.getByRole('button', { name: 'Run on 12 hosts' }).click()
    await page.getByText('1 / 12 done').waitFor() // the first that finished is there while the others run
    await page.getByRole('button', { name: /web-05.*first/ }).waitFor()
    await shoot('command-running')
    await page.getByRole('button', { name: 'Cancel', exact: true }).click()
    await page.getByLabel('Reason').fill('enough seen')
    await shoot('command-cancel')
    await page.getByRole('dialog').getByRole('button', { name: 'Cancel', exact: true }).click()
    await page.getByText('11 cancelled').first().waitFor()
    await page.getByRole('button', { name: 'Retry what failed' }).waitFor()
    // A stream ends with its page.
    await page.goto(`${world.url}/commands/new?clients=web-01,web-02`)
    await page.getByLabel('Line for the shell').fill('sleep 120')
    await page.getByText('As a stream').click()
    await page.getByRole('button', { name: 'Run on 2 hosts' }).click()
    await page.waitForURL(/commands\/[0-9a-f-]{36}/)
    await page.getByText('Is cancelled when this page is closed').waitFor()
    await page.getByText('2 running').first().waitFor()
    const id = page.url().match(/commands\/([0-9a-f-]+)/)[1]
    await page.reload()
    await page.getByText('2 cancelled').first().waitFor()
    assert.equal((await world.call('GET', `/api/batch/jobs/${id}`)).status, 'cancelled')
    await page.goto(`${world.url}/commands`)
    await page.getByText(/^\d commands$/).waitFor()
    await shoot('commands')
  },
}
