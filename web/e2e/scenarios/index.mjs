// All scenarios, in the order in which they run: each may build on what those before it left in the world.
import assert from 'node:assert/strict'
import canary from './canary.mjs'
import commands from './commands.mjs'
import container from './container.mjs'
import failing from './failing.mjs'
import fleet from './fleet.mjs'
import login from './login.mjs'
import newrelease from './newrelease.mjs'
import phone from './phone.mjs'
import projects from './projects.mjs'
import recovery from './recovery.mjs'
import rollback from './rollback.mjs'
import schedules from './schedules.mjs'
import system from './system.mjs'

/** By name: what is done with { world, page, context, shoot, logIn, choose, value }. */
export const scenarios = new Map()
for (const group of [login, fleet, commands, canary, projects, failing, recovery, rollback, container, system, phone, newrelease, schedules]) {
  for (const [name, scenario] of Object.entries(group)) {
    assert.ok(!scenarios.has(name), `there are two scenarios ${name}`)
    scenarios.set(name, scenario)
  }
}
