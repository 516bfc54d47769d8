// A small window, the keyboard, the other language.
import assert from 'node:assert/strict'
import { eventually } from '../world.mjs'

export default {
  async 'promote, pause and abort on a phone'({ page, world, shoot }) {
    await world.makeVersion('shop', '9.0', 'echo up; sleep 4')
    const task = await world.makeTask('shop', '9.0', { strategy: { canary: { percent: 10, promote: 'manual' }, waves: [50, 100], max_parallel: 1 } })
    await page.setViewportSize({ width: 390, height: 844 })
    await page.goto(`${world.url}/releases/${task.id}`)
    await page.getByText('Promote it, or roll it back').waitFor()
    for (const [name, done] of [['Promote', 'wave 1'], ['Pause', 'paused'], ['Abort', 'aborted']]) {
      const button = page.getByRole('button', { name, exact: true })
      const box = await button.boundingBox()
      assert.ok(box.x >= 0 && box.x + box.width <= 390 && box.y + box.height <= 844, `${name} is in sight`)
      await button.click()
      await shoot(`phone-${name.toLowerCase()}-asks`)
      await page.getByRole('dialog').getByRole('button', { name, exact: true }).click()
      await page.getByText(done, { exact: true }).first().waitFor()
    }
    await eventually('it is aborted', async () => (await world.task(task.id)).status === 'aborted')
    await page.goto(`${world.url}/system`)
    await page.locator('canvas').nth(7).waitFor({ timeout: 30_000 })
    await shoot('phone-system')
    await page.setViewportSize({ width: 1280, height: 800 })
  },

  async 'keyboard, language, phone'({ page, world, shoot }) {
    await world.makeVersion('shop', '7.0', 'echo up; sleep 8')
    await world.makeTask('shop', '7.0', { strategy: { canary: { percent: 25, soak: '1h' }, max_parallel: 2 } })
    await page.goto(`${world.url}/`)
    await page.getByText('Rolling out now').waitFor()
    await shoot('overview')
    await page.keyboard.press('Control+k')
    await page.getByRole('combobox').fill('web-03')
    await page.getByRole('option', { name: /web-03/ }).waitFor()
    await shoot('palette')
    await page.keyboard.press('ArrowDown')
    await page.keyboard.press('ArrowUp')
    await page.keyboard.press('Enter')
    await page.waitForURL(/\/fleet\/web-03$/)
    await page.getByRole('button', { name: '中文' }).click()
    await page.getByRole('heading', { name: '运行的版本' }).waitFor()
    await page.goto(`${world.url}/`)
    await page.getByText('正在发布').waitFor()
    await shoot('overview-zh')
    await page.goto(`${world.url}/releases`)
    await page.locator('.task').first().click()
    await page.getByRole('tab', { name: '日志' }).waitFor()
    await shoot('release-zh')
    await page.getByRole('button', { name: 'English' }).click()
    const task = await (async () => {
      await world.makeVersion('shop', '5.0', 'echo up')
      return world.makeTask('shop', '5.0', { strategy: { canary: { percent: 10, promote: 'manual' } } })
    })()
    await page.setViewportSize({ width: 390, height: 844 })
    await page.goto(`${world.url}/releases/${task.id}`)
    await page.getByText('Promote it, or roll it back').waitFor()
    await shoot('phone-release')
    await page.getByRole('button', { name: 'Abort' }).click()
    await shoot('phone-abort')
    await page.getByRole('dialog').getByRole('button', { name: 'Abort' }).click()
    await page.getByText('aborted').first().waitFor()
    for (const [name, path] of [['overview', '/'], ['fleet', '/fleet'], ['commands', '/commands'], ['command-new', '/commands/new']]) {
      await page.goto(world.url + path)
      await page.waitForLoadState('load')
      await shoot(`phone-${name}`)
    }
    await page.setViewportSize({ width: 1280, height: 800 })
  },
}
