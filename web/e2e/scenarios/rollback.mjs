// What goes back, and what is tried again.
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { eventually } from '../world.mjs'

export default {
  async 'a failing canary is rolled back'({ page, world, shoot }) {
    await world.makeVersion('mail', '1.0', 'echo up')
    const first = await world.makeTask('mail', '1.0')
    await eventually('1.0 runs', async () => (await world.task(first.id)).status === 'succeeded')
    // By itself, where that was wanted.
    await world.makeVersion('mail', '2.0', 'case "$QUICFLOW_TARGET" in web-01) echo "GET /ready: 503" >&2; exit 7;; esac; echo up')
    const failing = await world.makeTask('mail', '2.0', { strategy: { canary: { percent: 25, promote: 'manual' }, on_failure: 'rollback' } })
    await page.goto(`${world.url}/releases/${failing.id}`)
    await page.getByText('1 of 3 canary hosts failed').waitFor()
    await page.getByText('3 rolled back').first().waitFor()
    await page.getByText('9 skipped').first().waitFor()
    await shoot('release-canary-failed')
    // By a person, who does not like what the canary says.
    await world.makeVersion('mail', '2.1', 'echo "GET /ready: 503"')
    const task = await world.makeTask('mail', '2.1', { strategy: { canary: { percent: 25, promote: 'manual' } } })
    await page.goto(`${world.url}/releases/${task.id}`)
    await page.getByText('Promote it, or roll it back').waitFor()
    await page.getByText('GET /ready: 503').first().waitFor()
    await page.getByRole('button', { name: 'Roll back' }).click()
    await page.getByText('Roll back 3 hosts of mail').waitFor()
    await page.getByText('go back to 1.0').waitFor()
    await page.getByLabel('Reason').fill('the canary answers 503')
    await page.getByRole('dialog').getByRole('button', { name: 'Roll back' }).click()
    await page.getByText('3 rolled back').first().waitFor()
    await eventually('it is rolled back', async () => (await world.task(task.id)).status === 'rolled_back')
    await page.getByText('the canary answers 503').first().waitFor()
  },

  async 'what failed is tried again'({ page, world, shoot }) {
    const mended = join(world.dir, 'mended')
    await world.makeVersion('shop', '8.0', `case "$QUICFLOW_TARGET" in web-0[1-3]) test -e ${mended} || { echo "no space left on device" >&2; exit 28; };; esac; echo up`)
    const task = await world.makeTask('shop', '8.0', { strategy: { max_failures: '50%' } })
    await page.goto(`${world.url}/releases/${task.id}`)
    await page.getByRole('button', { name: 'Retry what failed' }).click()
    await page.getByText('Retry shop 8.0 on 3 hosts').waitFor()
    assert.equal(await page.getByLabel('Reason').count(), 0) // nothing would keep it
    await shoot('release-retry')
    writeFileSync(mended, '')
    await page.getByRole('dialog').getByRole('button', { name: 'Retry what failed' }).click()
    await page.waitForURL((u) => !u.pathname.endsWith(task.id))
    await page.getByText('3 / 3 done').waitFor()
    assert.equal(await page.getByRole('button', { name: 'Retry what failed' }).count(), 0) // nothing is left
    await page.goBack()
    await page.getByText('9 / 12 done').waitFor()
  },
}
