// A QuicFlow of its own for the tests: a real server in a temporary directory, real agents, and the API.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createSocket } from 'node:dgram'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

const root = resolve(import.meta.dirname, '../..')
const bin = (name) => join(root, 'bin', name)

/** eventually gives what condition gives as soon as that is true of it, and fails after a while. */
export async function eventually(what, condition, ms = 60_000) {
  const until = Date.now() + ms
  let last
  for (;;) {
    try {
      const value = await condition()
      if (value) return value
      last = value
    } catch (e) {
      last = e
    }
    if (Date.now() > until) throw new Error(`not within ${ms / 1000} s: ${what}`, { cause: last })
    await new Promise((r) => setTimeout(r, 100))
  }
}

async function freeTCP() {
  const s = createServer()
  s.listen(0, '127.0.0.1')
  await once(s, 'listening')
  const { port } = s.address()
  s.close()
  await once(s, 'close')
  return port
}

async function freeUDP() {
  const s = createSocket('udp4')
  s.bind(0, '127.0.0.1')
  await once(s, 'listening')
  const { port } = s.address()
  s.close()
  await once(s, 'close')
  return port
}

export class World {
  dir = mkdtempSync(join(tmpdir(), 'quicflow-console-'))
  agents = new Map()

  async start() {
    for (const name of ['quic-server', 'quic-client', 'quic-ctl']) {
      if (!existsSync(bin(name))) throw new Error(`bin/${name} is not there; run this by make e2e-web`)
    }
    this.api = `127.0.0.1:${await freeTCP()}`
    this.quic = `127.0.0.1:${await freeUDP()}`
    this.metrics = `127.0.0.1:${await freeTCP()}`
    this.url = `http://${this.api}`
    writeFileSync(join(this.dir, 'server.yaml'), 'session:\n  heartbeat_interval: 1\n  heartbeat_timeout: 3\n  heartbeat_check_interval: 1\n  offline_grace: 5\n')
    await this.startServer()
  }

  run(name, program, args, env = {}) {
    const log = openSync(join(this.dir, `${name}.log`), 'a')
    const child = spawn(program, args, { stdio: ['ignore', log, log], env: { ...process.env, ...env } })
    child.gone = once(child, 'exit')
    return child
  }

  async startServer() {
    this.server = this.run('server', bin('quic-server'), ['-c', join(this.dir, 'server.yaml'), '--data-dir', join(this.dir, 'data')], {
      QUIC_SERVER_ADDR: this.quic, QUIC_SERVER_API_ADDR: this.api, QUIC_METRICS_ADDR: this.metrics,
    })
    await eventually('the server is ready', async () => {
      if (this.server.exitCode !== null) throw new Error(readFileSync(join(this.dir, 'server.log'), 'utf8').slice(-2000))
      return (await fetch(`${this.url}/ready`)).ok
    }, 120_000)
    this.token = readFileSync(join(this.dir, 'data', 'admin.token'), 'utf8').trim()
  }

  /** killServer ends it as a power cut would. */
  async killServer() {
    this.server.kill('SIGKILL')
    await this.server.gone
  }

  startAgent(id, token, labels = {}) {
    const args = ['-s', this.quic, '-i', id, '--data-dir', join(this.dir, 'agents', id)]
    for (const [k, v] of Object.entries(labels)) args.push('--label', `${k}=${v}`)
    this.agents.set(id, this.run(id, bin('quic-client'), args, token ? { QUIC_JOIN_TOKEN: token } : {}))
  }

  async stopAgent(id) {
    const agent = this.agents.get(id)
    this.agents.delete(id)
    agent.kill('SIGTERM')
    await agent.gone
  }

  /** call asks the API. */
  async call(method, path, body) {
    const response = await fetch(this.url + path, {
      method, headers: { Authorization: `Bearer ${this.token}`, 'Content-Type': 'application/json' }, body: body === undefined ? undefined : JSON.stringify(body),
    })
    const text = await response.text()
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`)
    return text === '' ? undefined : JSON.parse(text)
  }

  /** ctl runs quic-ctl, and gives what it prints. */
  ctl(args, input) {
    return execFileSync(bin('quic-ctl'), args, { input, encoding: 'utf8', timeout: 30_000, env: { ...process.env, QUICFLOW_SERVER: this.url, QUICFLOW_TOKEN: this.token } })
  }

  /** makeVersion makes a version of a script project, and the project if it is new. */
  async makeVersion(project, version, install) {
    await this.call('POST', '/api/release/projects', { name: project, type: 'script' }).catch((e) => {
      if (!String(e).includes('409')) throw e
    })
    await this.call('POST', `/api/release/projects/${project}/versions`, { version, status: 'active', script: { install, uninstall: 'echo gone' } })
  }

  makeTask(project, version, more = {}) {
    return this.call('POST', '/api/release/tasks', { project, version, targets: { selector: '*' }, ...more })
  }

  task(id) {
    return this.call('GET', `/api/release/tasks/${id}`)
  }

  async stop() {
    for (const agent of this.agents.values()) agent.kill('SIGTERM')
    await Promise.all([...this.agents.values()].map((a) => a.gone))
    if (this.server && this.server.exitCode === null && this.server.signalCode === null) {
      this.server.kill('SIGTERM')
      await this.server.gone
    }
    if (!process.env.KEEP) rmSync(this.dir, { recursive: true, force: true })
  }
}
