/** makePay makes a project with variables, an environment and versions, unless it is there; 3.0 refers to a variable that is not. */
export async function makePay(world) {
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
