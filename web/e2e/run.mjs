// The console from end to end: Chromium against a real server with real agents. ONLY=part of a name runs some of the scenarios.
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { chromium } from 'playwright-core'
import { eventually, World } from './world.mjs'

const shots = join(import.meta.dirname, 'screenshots')
mkdirSync(shots, { recursive: true })
// Those that docs/console.md shows, by the theme they are shown in.
const pictures = { overview: 'light', fleet: 'light', 'release-canary': 'light', 'release-failed': 'dark', command: 'light', system: 'dark' }
const album = join(import.meta.dirname, '../../docs/pictures')
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const world = new World()
const faults = []
let browser, context, page

async function openBrowser() {
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] })
  context = await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: 'en-GB', colorScheme: 'light', timezoneId: 'UTC' })
  context.setDefaultTimeout(20_000)
  await context.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (e) => console.error(`policy: ${e.violatedDirective} ${e.blockedURI} ${e.sourceFile}:${e.lineNumber} ${e.sample}`))
  })
  page = await newPage()
}

async function newPage() {
  const p = await context.newPage()
  p.on('console', (m) => {
    // That a request failed is for the page to say, not for the console of the browser.
    if (m.type() === 'error' && !m.text().startsWith('Failed to load resource')) faults.push(`console: ${m.text()}`)
    if (m.type() === 'warning' && m.text().includes('[Vue warn]')) faults.push(m.text())
  })
  p.on('pageerror', (e) => faults.push(`error: ${e.stack ?? e.message}`))
  p.on('request', (r) => {
    if (!r.url().startsWith(world.url) && !r.url().startsWith('blob:') && !r.url().startsWith('data:')) faults.push(`request to elsewhere: ${r.url()}`)
  })
  return p
}

const theme = (p, name) => p.evaluate((t) => localStorage.setItem('quicflow.theme', JSON.stringify(t)), name)

/** shoot takes a picture in both themes, and asks axe what is wrong with the page. */
async function shoot(name, options = {}) {
  const p = options.page ?? page
  for (const scheme of ['light', 'dark']) {
    await p.emulateMedia({ colorScheme: scheme })
    await p.waitForTimeout(350) // of transitions; a picture, no test
    await p.screenshot({ path: join(shots, `${name}-${scheme}.png`), fullPage: false })
    if (process.env.PICTURES && pictures[name] === scheme) await p.screenshot({ path: join(album, `${name}.png`) })
    const wide = await p.evaluate(() => document.documentElement.scrollWidth > window.innerWidth + 1)
    if (wide) faults.push(`${name}: the page is wider than the window`)
    if (options.axe === false) continue
    await p.evaluate(axe)
    const found = await p.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }).then((r) => r.violations.map((v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => `${n.target.join(' ')} ${n.any[0]?.message ?? n.failureSummary}`).join(' | ')}`)))
    for (const f of found) faults.push(`${name} (${scheme}): axe ${f}`)
  }
  await p.emulateMedia({ colorScheme: 'light' })
}

async function logIn(p, token = world.token) {
  await p.getByLabel('API token').fill(token)
  await p.getByRole('button', { name: 'Log in' }).click()
}

const scenarios = {
  async 'login leads on to where one wanted to go'() {
    await page.goto(`${world.url}/fleet?status=offline`)
    await page.waitForURL(/\/login\?next=/)
    await shoot('login')
    await logIn(page, 'qfa_wrong')
    await page.getByText('This token is not valid.').waitFor()
    await shoot('login-wrong')
    await logIn(page)
    await page.waitForURL(`${world.url}/fleet?status=offline`)
    await page.goto(`${world.url}/`)
    await page.getByText('No agents yet').waitFor()
    await shoot('overview-first')
    await page.goto(`${world.url}/nothing/here`)
    await page.getByText('There is nothing here').waitFor()
  },

  async 'agents join with the command and appear'() {
    await page.goto(`${world.url}/fleet`)
    await page.getByText('No agents yet').waitFor()
    await page.getByLabel('Agents', { exact: true }).fill('12')
    await page.getByRole('button', { name: 'Make a token' }).click()
    const line = await page.locator('pre.line').innerText()
    await shoot('fleet-join')
    assert.match(line, new RegExp(`^quic-client -s 127\\.0\\.0\\.1:${world.quic.split(':')[1]} -i \\$\\(hostname\\) --token \\S+$`))
    const token = line.split(' ').at(-1)
    for (let i = 1; i <= 12; i++) {
      world.startAgent(`web-${String(i).padStart(2, '0')}`, token, { env: i <= 8 ? 'prod' : 'test', zone: `z${i % 3}`, port: String(18100 + i) })
    }
    await page.getByText('12 of 12 online').waitFor() // without a reload
    await page.getByRole('link', { name: 'web-12' }).waitFor()
    await shoot('fleet')
  },

  async 'the fleet is filtered, and the filter is in the address'() {
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

  async 'a command runs on those that were picked'() {
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

  async 'a batch is watched and cancelled'() {
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

  async 'a canary is watched, promoted, and done'() {
    await world.makeVersion('shop', '1.0', 'echo "installing shop $QUICFLOW_VERSION"')
    const first = await world.makeTask('shop', '1.0')
    await page.goto(`${world.url}/releases/${first.id}`)
    await page.getByText('succeeded').first().waitFor()
    await world.makeVersion('shop', '2.0', 'echo "stopping 1.0"; sleep 1; printf "\\033[33mmigrating\\033[0m\\n"; sleep 1; echo "shop 2.0 is up on $QUICFLOW_TARGET"')
    const task = await world.makeTask('shop', '2.0', { strategy: { canary: { percent: 20, promote: 'manual' }, waves: [50, 100], max_parallel: 3 } })
    await page.goto(`${world.url}/releases/${task.id}`)
    await page.getByText('shop 2.0 is up on web-01').waitFor()
    await page.getByText('Promote it, or roll it back').waitFor()
    await shoot('release-canary')
    assert.ok(await page.getByRole('button', { name: 'Promote' }).isEnabled())
    await page.getByRole('button', { name: 'Promote' }).click()
    await page.getByLabel('Reason').fill('the canary is fine')
    await shoot('release-promote')
    await page.getByRole('dialog').getByRole('button', { name: 'Promote' }).click()
    await page.getByText('wave 1').first().waitFor()
    await page.getByRole('button', { name: 'Pause' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Pause' }).click()
    await page.getByRole('button', { name: 'Resume' }).waitFor()
    await shoot('release-paused')
    await page.getByRole('button', { name: 'Resume' }).click()
    await page.getByText('12 / 12 done').waitFor()
    await page.getByText('shop 2.0 is up on web-12').waitFor()
    await shoot('release-done')
    assert.equal((await world.task(task.id)).status, 'succeeded')
    await page.getByLabel('Search the log').fill('migrating')
    await page.getByText('12 lines').waitFor()
    await page.waitForURL(/q=migrating/)
    await page.getByRole('tab', { name: 'Hosts' }).click()
    await page.getByRole('link', { name: 'web-07' }).click()
    await page.locator('.xterm-rows').getByText('shop 2.0 is up on web-07').waitFor()
    await shoot('release-host')
    await page.goto(`${world.url}/releases/${task.id}?tab=plan`)
    await page.getByText('Failures tolerated').waitFor()
    await page.goto(`${world.url}/releases`)
    await page.getByText(/^\d releases$/).waitFor()
    await shoot('releases')
    await page.goto(`${world.url}/fleet/web-07`)
    await page.getByText('2.0').first().waitFor()
    await shoot('agent')
    await page.getByRole('tab', { name: 'Facts' }).click()
    await shoot('agent-facts')
  },

  async 'a project is made, given versions, and compared'() {
    const field = (name) => page.locator(`[data-field="${name}"]`)
    await page.goto(`${world.url}/projects`)
    if ((await world.call('GET', '/api/release/projects')).total === 0) {
      await page.getByText('No projects yet').waitFor()
      await shoot('projects-first')
    }
    await page.getByRole('button', { name: 'New project' }).first().click()
    await page.waitForURL(/new=1/)
    await page.getByLabel('Name', { exact: true }).fill('Billing')
    await page.getByLabel('Description').fill('Invoices, and who has paid them')
    await page.getByText('Container', { exact: true }).click()
    await field('image').getByRole('textbox').waitFor()
    await shoot('project-new-container')
    await page.getByText('Script', { exact: true }).click()
    await field('timeout').getByRole('textbox').fill('soon')
    await page.getByRole('button', { name: 'Make the project' }).click()
    await field('timeout').getByRole('alert').waitFor() // the server says it, at its field
    await shoot('project-new')
    await field('timeout').getByRole('textbox').fill('2m')
    await page.getByRole('button', { name: 'Make the project' }).click()
    await page.getByText(/lower case/).and(page.getByRole('alert')).waitFor()
    await page.getByLabel('Name', { exact: true }).fill('billing')
    await field('env').getByRole('button', { name: 'Add' }).click()
    await field('env').getByLabel('Name').fill('PORT')
    await field('env').getByLabel('env PORT').fill('${PORT}')
    await page.getByRole('button', { name: 'Make the project' }).click()
    await page.waitForURL(/\/projects\/billing$/)
    await page.getByText('No versions yet').waitFor()
    await shoot('project-first')

    await page.getByRole('tab', { name: 'Environments' }).click()
    await page.getByRole('button', { name: 'New environment' }).click()
    await page.getByLabel('Name', { exact: true }).fill('prod')
    await page.getByLabel('Hosts', { exact: true }).fill('env=prod')
    await page.getByText('picks 8 hosts').waitFor()
    await field('strategy.canary').getByRole('button', { name: 'Add' }).click()
    await field('strategy.canary.percent').getByRole('spinbutton').fill('10')
    await field('strategy.max_failures').getByRole('textbox').fill('a few')
    await page.getByRole('button', { name: 'Make the environment' }).click()
    await field('strategy.max_failures').getByRole('alert').waitFor()
    await shoot('environment-new')
    await field('strategy.max_failures').getByRole('textbox').fill('5%')
    await page.getByRole('button', { name: 'Make the environment' }).click()
    await page.getByText('canary 10 %').waitFor()
    await shoot('project-environments')

    await page.getByRole('tab', { name: 'Variables' }).click()
    await page.getByRole('button', { name: 'New variable' }).click()
    await page.getByLabel('Name', { exact: true }).fill('PORT')
    await page.getByLabel('Value').fill('8080')
    await page.getByRole('button', { name: 'Make the variable' }).click()
    await page.getByText('8080').waitFor()
    await page.getByRole('button', { name: 'New variable' }).click()
    await page.getByLabel('Name', { exact: true }).fill('DB_PASSWORD')
    await page.getByText('Secret', { exact: true }).click()
    await page.getByLabel('Value').fill('hush-hush')
    await page.getByRole('button', { name: 'Make the variable' }).click()
    await page.getByText('secret, not shown').waitFor()
    await shoot('project-variables')
    await page.getByRole('button', { name: 'Replace DB_PASSWORD' }).click()
    await page.getByLabel('Value').waitFor()
    assert.equal(await page.getByLabel('Value').inputValue(), '')
    await page.getByLabel('Description').fill('Of the reader')
    await shoot('variable-secret')
    await page.getByRole('button', { name: 'Save' }).click()
    await page.getByText('Of the reader').waitFor() // and it keeps its value

    await page.getByRole('tab', { name: 'Versions' }).click()
    await page.getByRole('button', { name: 'New version' }).click()
    await page.getByLabel('Version', { exact: true }).fill('1.0')
    await page.getByRole('button', { name: 'Make the version' }).click()
    await page.getByRole('alert').first().waitFor() // without a script it installs nothing
    await shoot('version-new')
    await field('install').getByRole('textbox').fill('set -eu\necho "starting billing on $PORT"\n./billing --port "$PORT" &\n')
    await field('uninstall').getByRole('textbox').fill('pkill billing')
    await page.getByRole('button', { name: 'Make the version' }).click()
    await page.waitForURL(/version=1\.0/)
    await page.getByRole('region', { name: 'Version 1.0 as YAML' }).getByText('starting billing').waitFor()
    await page.getByRole('button', { name: 'New version' }).click()
    assert.equal(await page.getByLabel('Version', { exact: true }).inputValue(), '1.1') // a copy of the one before
    await page.getByLabel('Version', { exact: true }).fill('2.0')
    await field('install').getByRole('textbox').fill('set -eu\necho "starting billing 2 on $PORT"\n./billing --port "$PORT" --workers 4 &\n')
    await field('keep_releases').getByRole('spinbutton').fill('5')
    await shoot('version-copy')
    await page.getByRole('button', { name: 'Make the version' }).click()
    await page.waitForURL(/version=2\.0/)
    await shoot('project-versions')
    const release = page.getByRole('link', { name: 'New release 2.0' })
    assert.match(await release.getAttribute('href'), /\/releases\/new\?project=billing&version=2\.0$/)
    await page.getByRole('button', { name: 'More for 2.0' }).click()
    await page.getByRole('menuitem', { name: 'Compare with the one before' }).click()
    await page.waitForURL(/tab=compare&a=1\.0&b=2\.0/)
    await page.locator('td.removed').filter({ hasText: 'starting billing on' }).waitFor()
    await page.locator('td.added').filter({ hasText: '--workers 4' }).waitFor()
    await shoot('project-compare')
    await page.getByText('Unified').click()
    await page.waitForURL(/view=unified/)
    await page.locator('tr.added').filter({ hasText: 'keep_releases: 5' }).waitFor()
    await shoot('project-compare-unified')

    await page.getByRole('tab', { name: 'YAML' }).click()
    const yaml = await page.getByRole('region', { name: 'billing as YAML' }).innerText()
    const { parseAllDocuments } = await import('yaml')
    const docs = parseAllDocuments(yaml).map((d) => d.toJS())
    assert.deepEqual(docs.map((d) => `${d.kind} ${d.name ?? d.version}`), ['Project billing', 'Environment prod', 'Variable DB_PASSWORD', 'Variable PORT', 'Version 1.0', 'Version 2.0'])
    assert.deepEqual(docs[2], { kind: 'Variable', project: 'billing', name: 'DB_PASSWORD', description: 'Of the reader', secret: true })
    assert.equal(docs[1].strategy.canary.percent, 10)
    assert.ok(!(await page.content()).includes('hush-hush'))
    const applied = world.ctl(['apply', '-f', '-', '--dry-run'], yaml) // as it is, it changes nothing
    assert.equal(applied.match(/unchanged/g)?.length, docs.length, applied)
    await shoot('project-yaml')

    // A status is changed back and forth; a version that is not used is deleted.
    await page.getByRole('tab', { name: 'Versions' }).click()
    await page.getByRole('button', { name: 'More for 1.0' }).click()
    await page.getByRole('menuitem', { name: 'Deprecate' }).click()
    await page.getByText('deprecated', { exact: true }).waitFor()
    await page.getByRole('button', { name: 'Activate 1.0' }).click()
    await page.getByText('deprecated', { exact: true }).waitFor({ state: 'detached' })
    await page.getByRole('button', { name: 'More for 1.0' }).click()
    await page.getByRole('menuitem', { name: 'Delete' }).click()
    await page.getByText('Delete billing 1.0').waitFor()
    await shoot('version-delete')
    await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click()
    await page.getByText('1 version', { exact: true }).waitFor()
  },

  async 'two people change a project at the same time'() {
    await world.call('POST', '/api/release/projects', { name: 'ledger', type: 'script', description: 'Books', script: { timeout: '1m' } })
    await page.goto(`${world.url}/projects/ledger?tab=configuration`)
    await page.getByLabel('Description').fill('Books, by me')
    const theirs = (description) => world.call('PUT', '/api/release/projects/ledger', { description, script: { timeout: '3m' } })
    await theirs('Books, by them')
    await page.getByText('Someone else changed this meanwhile.').waitFor() // before it was saved
    await page.getByRole('button', { name: 'Save' }).click()
    await page.getByText('What you typed was not saved').waitFor() // 412
    await page.locator('tr.removed').filter({ hasText: 'by them' }).waitFor()
    await shoot('project-stale')
    assert.equal((await world.call('GET', '/api/release/projects/ledger')).description, 'Books, by them')
    await page.getByRole('button', { name: 'Read it again' }).click()
    await page.getByText('Someone else changed this meanwhile.').waitFor({ state: 'detached' })
    assert.equal(await page.getByLabel('Description').inputValue(), 'Books, by them')
    await page.getByLabel('Description').fill('Books, by both')
    await page.getByRole('button', { name: 'Save' }).click()
    await page.getByText('Saved.').waitFor()
    assert.equal((await world.call('GET', '/api/release/projects/ledger')).description, 'Books, by both')
    await theirs('Books, live')
    await page.waitForFunction(() => document.querySelector('#config-description')?.value === 'Books, live') // what nobody edits follows
    await shoot('project-configuration')
    await page.getByRole('button', { name: 'Delete the project' }).click()
    await shoot('project-delete')
    await page.getByRole('dialog').getByRole('button', { name: 'Delete the project' }).click()
    await page.waitForURL(/\/projects$/)
  },

  async 'what runs where is shown, and checked'() {
    await world.makeVersion('depot', '1.0', 'echo up')
    await page.goto(`${world.url}/projects/depot?tab=hosts`)
    await page.getByText('It runs nowhere yet').waitFor()
    const task = await world.makeTask('depot', '1.0')
    await page.getByText('12 hosts', { exact: true }).waitFor() // without a reload
    await eventually('it is done', async () => (await world.task(task.id)).finished_at)
    await page.getByRole('button', { name: 'Check for drift' }).click()
    await page.getByText('12 hosts were looked at').or(page.getByText('of 12 differ')).first().waitFor()
    await shoot('project-hosts')
    await page.keyboard.press('Control+k')
    await page.getByRole('combobox').fill('depot')
    await page.getByRole('option', { name: /depot script/ }).or(page.getByRole('option', { name: /depot Script/ })).first().click()
    await page.waitForURL(/\/projects\/depot$/)
    // Other types: their fields, in groups.
    for (const [type, part] of [['container', { image: 'registry.example.com/team/app' }], ['kubernetes', { image: 'registry.example.com/team/app' }], ['git', { repository: 'file:///nowhere/site.git' }]]) {
      await world.call('POST', '/api/release/projects', { name: `a-${type}`, type, [type]: part })
      await page.goto(`${world.url}/projects/a-${type}?tab=configuration`)
      await page.getByText('Only what is set').waitFor()
      await shoot(`project-${type}`)
    }
    await page.goto(`${world.url}/projects/a-container?tab=configuration`)
    await page.getByLabel(/Find among/).fill('propagation')
    const volumes = page.locator('[data-field="volumes"]')
    await volumes.getByRole('button', { name: 'Add' }).click()
    await volumes.getByLabel('volumes 1.target').fill('/data')
    await shoot('schema-form-list')
    await page.goto(`${world.url}/projects/a-git?new=1`)
    await page.getByRole('combobox', { name: 'Branch or tag' }).click()
    await page.getByRole('alert').first().waitFor({ timeout: 45_000 }) // the repository is not there, and the agent says so
    await page.keyboard.press('Escape')
    await page.locator('.el-select-dropdown__empty').waitFor({ state: 'hidden' })
    await shoot('version-git')
    await page.goto(`${world.url}/projects`)
    await page.getByText(/^\d+ projects$/).waitFor()
    await shoot('projects')
    await page.goto(`${world.url}/projects?q=nothing-like-it`)
    await page.getByText('No project matches').waitFor()
    await page.goto(`${world.url}/projects/nothing-like-it`)
    await page.getByText('There is no such project').waitFor()
    await shoot('project-gone')
    await page.setViewportSize({ width: 390, height: 844 })
    for (const [name, path] of [['projects', '/projects'], ['project', '/projects/depot'], ['project-version', '/projects/depot?new=1'], ['project-config', '/projects/a-container?tab=configuration'], ['project-hosts', '/projects/depot?tab=hosts'], ['project-variables', '/projects/depot?tab=variables&new=1'], ['project-environments', '/projects/depot?tab=environments&new=1']]) {
      await page.goto(world.url + path)
      await page.locator('[role=tabpanel] input, [role=tabpanel] button, .project').first().waitFor()
      await shoot(`phone-${name}`)
    }
    await page.setViewportSize({ width: 1280, height: 800 })
    await page.getByRole('button', { name: '中文' }).click()
    await page.goto(`${world.url}/projects/depot?new=1`)
    await page.getByText('此版本的内容').waitFor()
    await shoot('version-new-zh')
    await page.getByRole('button', { name: 'English' }).click()
  },

  async 'a failing release says why and is rolled back'() {
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

  async 'the server is killed and started while a release is watched'() {
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

  async 'a login that ends leads back to the same address'() {
    await world.makeVersion('shop', '6.0', 'echo up')
    const task = await world.makeTask('shop', '6.0')
    const address = `${world.url}/releases/${task.id}?q=line+7&tab=hosts`
    await page.goto(address)
    await page.getByRole('tab', { name: 'Hosts' }).waitFor()
    await context.clearCookies()
    await page.goto(address)
    await page.waitForURL(/\/login\?next=/)
    await logIn(page)
    await page.waitForURL(address)
    await page.getByRole('tab', { name: 'Hosts', selected: true }).waitFor()
    // In the middle of something, too.
    await context.clearCookies()
    await page.getByRole('tab', { name: 'Plan' }).click()
    await page.getByText('Search or go to').click() // which asks the API
    await page.waitForURL(/\/login\?/)
    await page.getByText('Your login has ended').waitFor()
    await shoot('login-expired')
    await logIn(page)
    await page.waitForURL(/releases\/.*tab=plan/)
  },

  async 'a failing canary is rolled back'() {
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

  async 'what failed is tried again'() {
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

  async 'the output of a container is followed'() {
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

  async 'the system at a glance'() {
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

  async 'promote, pause and abort on a phone'() {
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

  async 'keyboard, language, phone'() {
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

  async 'from a project that is new to a release that is done, by the console alone'() {
    const field = (name) => page.locator(`[data-field="${name}"]`)
    await page.goto(`${world.url}/projects?new=1`)
    await page.getByLabel('Name', { exact: true }).fill('greeter')
    await page.getByText('Script', { exact: true }).click()
    await page.getByRole('button', { name: 'Make the project' }).click()
    await page.waitForURL(/\/projects\/greeter$/)
    for (const version of ['1.0', '2.0']) {
      await page.goto(`${world.url}/projects/greeter`)
      await page.getByRole('button', { name: 'New version' }).click()
      await page.getByLabel('Version', { exact: true }).fill(version)
      await field('install').getByRole('textbox').fill(`echo "greeter ${version} is up"`)
      await page.getByRole('button', { name: 'Make the version' }).click()
      await page.waitForURL(new RegExp(`version=${version.replace('.', '\\.')}`))
      await page.getByRole('link', { name: `New release ${version}` }).click()
      await page.getByRole('textbox', { name: 'Selector' }).fill('env=prod')
      await page.getByText('picks 8 hosts').waitFor()
      if (version === '2.0') {
        await page.getByText('A canary first').click()
        await page.getByLabel('Size', { exact: true }).fill('25')
        await choose('Then', 'wait for a person')
      }
      await page.getByRole('button', { name: `Roll out greeter ${version} to 8 hosts` }).click()
      await page.waitForURL(/releases\/[0-9a-f-]{36}/)
      if (version === '2.0') {
        await page.getByText('Promote it, or roll it back').waitFor()
        await page.getByText('2 / 8 done').waitFor()
        await page.getByRole('button', { name: 'Promote' }).click()
        await page.getByRole('dialog').getByRole('button', { name: 'Promote' }).click()
      }
      await page.getByText('8 / 8 done').waitFor()
      await page.getByText(`greeter ${version} is up`).first().waitFor()
    }
    await page.goto(`${world.url}/projects/greeter?tab=hosts`)
    await page.getByText('2.0').first().waitFor()
  },

  // --- new releases and schedules

  async 'a new release: previewed, a canary first, promoted, done'() {
    await makePay()
    const first = await world.makeTask('pay', '1.0', { environment: 'prod', targets: undefined })
    await eventually('1.0 runs', async () => (await world.task(first.id)).status === 'succeeded')
    await page.goto(`${world.url}/fleet?selector=env%3Dprod`)
    await page.getByText('8 agents').waitFor()
    await page.getByLabel('Pick all').click()
    await page.getByRole('button', { name: 'Start a release' }).click()
    await page.waitForURL(/releases\/new\?selector=env(%3D|=)prod$/)
    await page.getByText('picks 8 hosts').waitFor()
    await page.getByText('Choose a project.').waitFor()
    await choose('Project', 'pay')
    await choose('Version', '2.0')
    await choose('Environment', 'prod')
    await page.waitForURL(/project=pay.*version=2\.0.*environment=prod/)
    await page.getByText('A canary first').click()
    await page.getByLabel('Size', { exact: true }).fill('20')
    await page.getByText('2 of 8 hosts').waitFor()
    await choose('Then', 'wait for a person')
    await page.getByLabel('Waves, % of all hosts').fill('50, 100')
    await page.getByRole('button', { name: /Override values/ }).click()
    await page.getByLabel('timeout', { exact: true }).fill('2m')
    const preview = page.locator('.side')
    await preview.getByText('Update 8 hosts').waitFor()
    await preview.getByText('from 1.0').waitFor()
    await preview.locator('.wave', { hasText: 'canary' }).getByText('web-01, web-02', { exact: true }).waitFor()
    await preview.locator('.wave', { hasText: 'wave 2' }).getByText('web-05, web-06, web-07, web-08').waitFor()
    await preview.getByText('waits for a person').waitFor()
    await value('timeout').getByText('this release').waitFor()
    await value('install').getByText('version', { exact: true }).waitFor()
    await value('env.GREETING').getByText('GREETING of the environment').waitFor()
    assert.match(await value('env.GREETING').innerText(), /hello from prod/)
    await value('env.TOKEN').getByText('TOKEN of the project · secret').waitFor()
    await page.locator('main').evaluate((m) => m.scrollTo(0, 0))
    await shoot('release-new')
    await page.locator('main').evaluate((m) => m.scrollTo(0, 700))
    await shoot('release-new-below')
    // From one layer only; it is in the address, and a reload keeps the rest too.
    await preview.getByRole('button', { name: /this release/ }).click()
    await page.waitForURL(/layer=task/)
    await page.reload()
    await value('timeout').getByText('2m0s').waitFor()
    assert.equal(await page.locator('.values > li').count(), 1)
    assert.equal(await page.getByLabel('Waves, % of all hosts').inputValue(), '50, 100')
    await preview.getByRole('button', { name: /this release/ }).click()
    // What is wrong is told at its place.
    await page.getByLabel('Waves, % of all hosts').fill('50, 20')
    await page.getByText(/must rise/).waitFor()
    await page.getByRole('button', { name: /Roll out pay/ }).and(page.locator(':disabled')).waitFor()
    await page.getByLabel('Waves, % of all hosts').fill('50, 100')
    await page.getByLabel('timeout', { exact: true }).fill('tomorrow')
    await page.locator('[data-field=timeout] [role=alert]').waitFor()
    await page.getByLabel('timeout', { exact: true }).fill('2m')
    await choose('Version', '3.0')
    await value('env.BROKEN').getByText('there is no variable NOWHERE; write $${NOWHERE} for ${NOWHERE} itself').waitFor()
    await page.locator('.values').scrollIntoViewIfNeeded()
    await shoot('release-new-wrong')
    await choose('Version', '2.0')
    // The answer gets lost, and the page is loaded again: still there is one release.
    let lost = 0
    await page.route('**/api/release/tasks', async (route) => {
      await route.fetch()
      lost++
      await route.abort()
    }, { times: 1 })
    await page.getByRole('button', { name: 'Roll out pay 2.0 to 8 hosts' }).click()
    await page.getByText('It was not taken').waitFor()
    assert.equal(lost, 1)
    await page.reload()
    await page.getByRole('button', { name: 'Roll out pay 2.0 to 8 hosts' }).dblclick()
    await page.waitForURL(/releases\/[0-9a-f-]{36}/)
    assert.equal((await world.call('GET', '/api/release/tasks?project=pay')).total, 2)
    await page.getByText('Promote it, or roll it back').waitFor()
    await page.getByRole('button', { name: 'Promote' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Promote' }).click()
    await page.getByText('8 / 8 done').waitFor()
    await page.getByText('succeeded').first().waitFor()
    await page.getByRole('tab', { name: 'Plan' }).click()
    await page.getByText('20 %, soak 0s, promotion by a person').waitFor()
    // To take it away is two steps.
    await page.goto(`${world.url}/releases/new?project=pay&action=uninstall&clients=web-01,web-09`)
    await page.getByText('Uninstall from 1 host').waitFor()
    await page.getByText('Nothing to do on 1 host').waitFor()
    await page.getByRole('button', { name: 'Uninstall pay from 2 hosts' }).click()
    await shoot('release-uninstall')
    await page.getByRole('dialog').getByRole('button', { name: 'Back' }).click()
    await page.goto(`${world.url}/releases/new`)
    await page.getByText('here you see what would change').waitFor()
    await shoot('release-new-first')
  },

  async 'a schedule: made, paused, resumed, triggered, edited, missed, deleted'() {
    await makePay()
    await page.goto(`${world.url}/schedules`)
    await page.getByText('No schedules yet').waitFor()
    await shoot('schedules-none')
    await page.getByRole('link', { name: 'New schedule' }).first().click()
    await choose('Project', 'pay')
    await choose('Version', '2.0')
    await choose('Environment', 'prod')
    await page.getByText('The selector of prod counts.').waitFor()
    await page.getByText('Give the schedule a name.').waitFor()
    await page.getByLabel('Name of the schedule').fill('Pay Nightly')
    await page.getByLabel(/^Cron/).fill('61 * * * *')
    await page.locator('.item', { hasText: 'Cron' }).getByRole('alert').waitFor()
    await page.getByLabel(/^Cron/).fill('30 2 * * 1-5')
    await page.getByText('Monday to Friday at 02:30').waitFor()
    await choose('Time zone', 'Europe/Berlin')
    await page.locator('.times li').first().getByText('02:30').waitFor() // by the clock there
    assert.equal(await page.locator('.times li').count(), 5)
    await page.getByRole('button', { name: 'Make the schedule' }).click()
    await page.locator('.item', { hasText: 'Name of the schedule' }).getByRole('alert').waitFor() // the server's word on the name
    await shoot('schedule-new')
    await page.getByLabel('Name of the schedule').fill('pay-nightly')
    await page.getByRole('button', { name: 'Make the schedule' }).click()
    await page.waitForURL(/\/schedules\/[0-9a-f-]{36}/)
    await page.getByText('It has not fired yet').waitFor()
    await page.getByText('active').first().waitFor()
    assert.equal(await page.locator('.times li').count(), 5)
    await page.getByRole('button', { name: 'Pause' }).click()
    await page.getByLabel('Reason').fill('a freeze until Monday')
    await page.getByRole('dialog').getByRole('button', { name: 'Pause' }).click()
    await page.getByText('a freeze until Monday').waitFor()
    await page.getByText('None while it is paused').waitFor()
    await shoot('schedule-paused')
    await page.getByRole('button', { name: 'Resume' }).click()
    await page.waitForFunction(() => document.querySelectorAll('.times li').length === 5)
    await page.getByRole('button', { name: 'Trigger now' }).click()
    await page.getByText('Starts a release of pay 2.0 at once').waitFor()
    await page.getByRole('dialog').getByRole('button', { name: 'Trigger now' }).click()
    const fire = page.locator('.fire').first()
    await fire.getByText('succeeded').waitFor() // live: nobody loads the page again
    await fire.getByText('triggered by').waitFor()
    await fire.getByRole('link', { name: 'Release' }).click()
    await page.getByText('8 / 8 done').waitFor()
    await page.goBack()
    await page.getByRole('link', { name: 'Edit', exact: true }).click()
    await page.getByText('picks 8 hosts').waitFor()
    await page.getByLabel(/^Cron/).fill('@daily')
    await page.getByText('every day at 00:00').waitFor()
    await page.getByRole('button', { name: 'Save the schedule' }).click()
    await page.waitForURL(/\/schedules\/[0-9a-f-]{36}$/)
    await page.getByText('every day at 00:00').waitFor()
    // One is missed: no server is there at its time.
    const at = new Date(Math.floor(Date.now() / 1000) * 1000 + 5_000)
    await world.call('POST', '/api/release/schedules', { name: 'pay-once', at: at.toISOString().replace('.000Z', 'Z'), catchup_window: '10s', task: { project: 'pay', version: '2.0', environment: 'prod' } })
    await page.goto(`${world.url}/schedules/pay-once`)
    await page.getByText('It has not fired yet').waitFor()
    await world.killServer()
    await eventually('its time is over', () => Date.now() > at.getTime() + 12_000)
    await world.startServer()
    await page.locator('.fire').getByText('missed').waitFor({ timeout: 60_000 })
    await page.getByText('It is over').waitFor()
    await page.getByText('once, ').waitFor()
    await shoot('schedule-missed')
    await page.getByRole('button', { name: 'missed' }).click()
    await page.waitForURL(/state=missed/)
    await page.goto(`${world.url}/schedules`)
    await page.getByText('2 schedules').waitFor()
    await shoot('schedules')
    for (const name of ['pay-once', 'pay-nightly']) {
      await page.getByRole('link', { name }).click()
      await page.getByRole('heading', { name }).waitFor()
      if (name === 'pay-nightly') await shoot('schedule')
      await page.getByRole('button', { name: 'Delete' }).click()
      if (name === 'pay-nightly') await shoot('schedule-delete')
      await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click()
      await page.waitForURL(/\/schedules$/)
      await page.getByRole('link', { name }).waitFor({ state: 'detached' })
    }
    await page.getByText('No schedules yet').waitFor()
    await page.goto(`${world.url}/schedules/pay-once`)
    await page.getByText('There is no such schedule').waitFor()
    // On a phone, and in Chinese.
    await world.call('POST', '/api/release/schedules', { name: 'pay-weekly', cron: '0 4 * * 1', timezone: 'Asia/Shanghai', task: { project: 'pay', version: '2.0', environment: 'prod' } })
    await page.goto(`${world.url}/releases/new?project=pay&version=2.0&environment=prod&when=cron`)
    await page.getByText('What changes').waitFor()
    await page.getByRole('button', { name: '中文' }).click()
    await page.getByRole('heading', { name: '新建发布' }).waitFor()
    await shoot('release-new-zh')
    await page.goto(`${world.url}/schedules/pay-weekly`)
    await page.getByText('星期一 04:00').waitFor()
    await shoot('schedule-zh')
    await page.getByRole('button', { name: 'English' }).click()
    await page.setViewportSize({ width: 390, height: 844 })
    for (const [name, path, text] of [['release-new', '/releases/new?project=pay&version=2.0&environment=prod', 'What changes'], ['schedules', '/schedules', 'pay-weekly'], ['schedule', '/schedules/pay-weekly', 'It has not fired yet']]) {
      await page.goto(world.url + path)
      await page.getByText(text).first().waitFor()
      await shoot(`phone-${name}`)
    }
    await page.setViewportSize({ width: 1280, height: 800 })
    await world.call('DELETE', '/api/release/schedules/pay-weekly')
  },
}

/** makePay makes a project with variables, an environment and versions; 3.0 refers to a variable that is not there. */
async function makePay() {
  const path = '/api/release/projects/pay'
  if (await world.call('GET', path).catch(() => undefined)) return
  await world.call('POST', '/api/release/projects', { name: 'pay', type: 'script', script: { env: { GREETING: '${GREETING}', TOKEN: '${TOKEN}' } } })
  await world.call('POST', `${path}/environments`, { name: 'prod', selector: 'env=prod', description: 'What customers see.' })
  await world.call('PUT', `${path}/variables/GREETING?environment=prod`, { value: 'hello from prod' })
  await world.call('PUT', `${path}/variables/TOKEN`, { value: 'hunter2', secret: true })
  for (const [version, env] of [['1.0', {}], ['2.0', { CACHE: 'on' }], ['3.0', { BROKEN: '${NOWHERE}' }]]) {
    await world.call('POST', `${path}/versions`, { version, status: 'active', script: { install: `echo "$GREETING, this is ${version}"\nsleep 0.3`, uninstall: 'echo gone', env } })
  }
}

/** choose picks an option of a list. */
async function choose(label, option) {
  const list = page.getByRole('combobox', { name: label, exact: true })
  await list.scrollIntoViewIfNeeded()
  await list.focus()
  await list.press('Enter')
  await page.getByRole('option', { name: new RegExp(`^${option.replaceAll('.', '\\.')}`) }).click()
}

/** value is the row of a value in a preview. */
const value = (path) => page.locator('.values > li').filter({ has: page.locator('.path', { hasText: new RegExp(`^${path.replaceAll('.', '\\.')}$`) }) })

let failed = 0
// Whoever ends this ends what it started.
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => void Promise.allSettled([browser?.close(), world.stop()]).then(() => process.exit(1)))
}
try {
  await world.start()
  await openBrowser()
  if (process.env.ONLY && !'login'.includes(process.env.ONLY)) {
    await page.goto(`${world.url}/login`)
    await logIn(page)
    const { token } = await world.call('POST', '/api/agent-tokens', { uses: 12 })
    for (let i = 1; i <= 12; i++) world.startAgent(`web-${String(i).padStart(2, '0')}`, token, { env: i <= 8 ? 'prod' : 'test', zone: `z${i % 3}` })
    await eventually('the agents are there', async () => (await world.call('GET', '/api/clients?status=online')).total === 12)
    await page.waitForURL(`${world.url}/`)
  }
  for (const [name, scenario] of Object.entries(scenarios)) {
    if (process.env.ONLY && !name.includes(process.env.ONLY)) continue
    const began = Date.now()
    try {
      await scenario()
      console.log(`ok    ${name} (${((Date.now() - began) / 1000).toFixed(1)} s)`)
    } catch (e) {
      failed++
      console.log(`FAIL  ${name}\n${e.stack}${e.cause ? `\n${e.cause.stack ?? e.cause}` : ''}\nat ${page.url()}`)
      await page.screenshot({ path: join(shots, `failed-${Object.keys(scenarios).indexOf(name)}.png`) }).catch(() => undefined)
      if (!process.env.GO_ON) break
    }
  }
} finally {
  await browser?.close()
  await world.stop()
}
for (const f of new Set(faults)) console.log(`fault ${f}`)
if (failed > 0 || faults.length > 0) process.exitCode = 1
