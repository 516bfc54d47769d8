// Chromium with one page of the console in it, what scenarios do with that page, and the faults that it shows meanwhile.
import { mkdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { chromium } from 'playwright-core'

const shots = join(import.meta.dirname, 'screenshots')
const album = join(import.meta.dirname, '../../docs/pictures')
// Those that docs/console.md shows, by the theme they are shown in.
const pictures = { overview: 'light', fleet: 'light', 'release-canary': 'light', 'release-failed': 'dark', command: 'light', system: 'dark' }
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const literally = (text) => text.replaceAll('.', '\\.')

export class Browser {
  /** What no page may do: errors in the console, what the policy blocked, requests to elsewhere, what axe finds. */
  faults = []

  constructor(world) {
    this.world = world
  }

  async open() {
    mkdirSync(shots, { recursive: true })
    this.chromium = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] })
    this.context = await this.chromium.newContext({ viewport: { width: 1280, height: 800 }, locale: 'en-GB', colorScheme: 'light', timezoneId: 'UTC' })
    this.context.setDefaultTimeout(20_000)
    await this.context.addInitScript(() => {
      document.addEventListener('securitypolicyviolation', (e) => console.error(`policy: ${e.violatedDirective} ${e.blockedURI} ${e.sourceFile}:${e.lineNumber} ${e.sample}`))
    })
    this.page = await this.context.newPage()
    this.page.on('console', (m) => {
      // That a request failed is for the page to say, not for the console of the browser.
      if (m.type() === 'error' && !m.text().startsWith('Failed to load resource')) this.faults.push(`console: ${m.text()}`)
      if (m.type() === 'warning' && m.text().includes('[Vue warn]')) this.faults.push(m.text())
    })
    this.page.on('pageerror', (e) => this.faults.push(`error: ${e.stack ?? e.message}`))
    this.page.on('request', (r) => {
      if (!r.url().startsWith(this.world.url) && !r.url().startsWith('blob:') && !r.url().startsWith('data:')) this.faults.push(`request to elsewhere: ${r.url()}`)
    })
  }

  close() {
    return this.chromium?.close()
  }

  /** shoot takes a picture in both themes, and asks axe what is wrong with the page. */
  shoot = async (name) => {
    const { page, faults } = this
    for (const scheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme: scheme })
      await page.waitForTimeout(350) // of transitions; a picture, no test
      await page.screenshot({ path: join(shots, `${name}-${scheme}.png`), fullPage: false })
      if (process.env.PICTURES && pictures[name] === scheme) await page.screenshot({ path: join(album, `${name}.png`) })
      const wide = await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth + 1)
      if (wide) faults.push(`${name}: the page is wider than the window`)
      await page.evaluate(axe)
      const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }).then((r) => r.violations.map((v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => `${n.target.join(' ')} ${n.any[0]?.message ?? n.failureSummary}`).join(' | ')}`)))
      for (const f of found) faults.push(`${name} (${scheme}): axe ${f}`)
    }
    await page.emulateMedia({ colorScheme: 'light' })
  }

  /** shootFailure takes a picture of what there was when a scenario failed. */
  async shootFailure(n) {
    await this.page.screenshot({ path: join(shots, `failed-${n}.png`) }).catch(() => undefined)
  }

  logIn = async (token = this.world.token) => {
    await this.page.getByLabel('API token').fill(token)
    await this.page.getByRole('button', { name: 'Log in' }).click()
  }

  /** choose picks an option of a list. */
  choose = async (label, option) => {
    const list = this.page.getByRole('combobox', { name: label, exact: true })
    await list.scrollIntoViewIfNeeded()
    await list.focus()
    await list.press('Enter')
    await this.page.getByRole('option', { name: new RegExp(`^${literally(option)}`) }).click()
  }

  /** value is the row of a value in a preview. */
  value = (path) => this.page.locator('.values > li').filter({ has: this.page.locator('.path', { hasText: new RegExp(`^${literally(path)}$`) }) })
}
