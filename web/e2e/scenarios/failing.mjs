// A release that goes badly.
import assert from 'node:assert/strict'
import { eventually } from '../world.mjs'

export default {
  async 'a failing release says why and is rolled back'({ page, world, shoot }) {
    await world.makeVersion('shop', '3.0', 'case "$QUICFLOW_TARGET" in web-0[1-4]) echo "migrate: lock timeout on db-1:5432" >&2; exit 1;; web-05) echo "no space left on device" >&2; exit 28;; esac; echo ok; sleep 20')
    const task = await world.makeTask('shop', '3.0', { strategy: { max_failures: '60%', max_parallel: 4, waves: [70, 100] } })
    await page.goto(`${world.url}/releases/${task.id}`)
    const group = page.getByRole('button', { name: /^4/ }).filter({ hasText: 'exit' })
    await group.first().waitFor()
    await page.getByRole('button', { name: 'Roll back' }).click()
    await page.getByText(/Roll back \d+ hosts of shop/).waitFor()
    await shoot('release-rollback')
    await page.getByRole('dialog').getByRole('button', { name: 'Roll back' }).click()
    await eventually('it is rolled back', async () => {
      const { status, phase, reason } = await world.task(task.id)
      return ['rolled_back', 'failed'].includes(status) || assert.fail(`${status} ${phase} ${reason}`)
    })
    await page.getByText('rolled back').first().waitFor()
    await shoot('release-rolled-back')
    await world.makeVersion('shop', '3.1', 'case "$QUICFLOW_TARGET" in web-0[1-4]) echo "migrate: lock timeout on db-1:5432" >&2; exit 1;; web-05) echo "no space left on device" >&2; exit 28;; esac; echo ok')
    const failing = await world.makeTask('shop', '3.1', { strategy: { max_failures: '50%' } })
    await page.goto(`${world.url}/releases/${failing.id}`)
    await page.getByText('partly done').or(page.getByText('failed', { exact: true })).first().waitFor()
    await eventually('it has ended', async () => (await world.task(failing.id)).finished_at)
    await shoot('release-failed')
    await page.getByRole('button', { name: /^4/ }).filter({ hasText: 'exit' }).first().click()
    await page.waitForURL(/reason=/)
    await page.getByText('4 hosts').waitFor()
    await shoot('release-hosts')
  },
}
