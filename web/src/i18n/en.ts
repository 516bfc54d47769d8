export const en = {
  loading: 'Loading',
  unit: { d: 'd', h: 'h', min: 'min', s: 's' },
  nav: {
    main: 'Pages', skip: 'Skip to the page', overview: 'Overview', releases: 'Releases', fleet: 'Fleet', commands: 'Commands', temporal: 'Temporal',
    fold: 'Fold the menu', language: 'Language', user: 'Logged in as {name}', version: 'Server {v}', logout: 'Log out',
  },
  theme: { title: 'Theme: {now}', light: 'light', dark: 'dark', system: 'as the system' },
  live: {
    off: 'Not connected', connecting: 'Connecting', live: 'Live', lost: 'Reconnecting',
    banner: 'The server cannot be reached. What you see may be old; it goes on by itself as soon as the server is back.',
    renewed: 'The server was updated.', reload: 'Load the new console',
  },
  error: { title: 'That did not work', unreachable: 'The server cannot be reached.', retry: 'Try again' },
  copy: { title: 'Copy {value}', done: 'Copied' },
  confirm: { reason: 'Reason', reasonHint: 'Kept with it, for whoever asks later', back: 'Back' },
  counts: { done: 'done', left: 'left' },
  state: {
    starting: 'starting', running: 'running', paused: 'paused', aborting: 'stopping', rolling_back: 'rolling back', succeeded: 'succeeded', partial: 'partly done',
    failed: 'failed', aborted: 'aborted', rolled_back: 'rolled back', pending: 'waiting', unknown: 'unknown', offline: 'offline', cancelled: 'cancelled',
    skipped: 'skipped', rollback_failed: 'rollback failed', refused: 'refused', timeout: 'timed out', cancelling: 'cancelling', completed: 'completed',
    executing: 'running', online: 'online', reconnecting: 'reconnecting', installed: 'installed',
  },
  phase: { plan: 'planning', canary: 'canary', soak: 'soaking', promotion: 'waits for promotion', wave: 'wave {n}', rollback: 'rolling back', done: 'done' },
  step: { canary: 'canary {share}', soak: 'soak {time}', promotion: 'promotion', wave: 'wave {n}', rollback: 'rollback', hosts: '{n} host | {n} hosts' },
  login: {
    token: 'API token', submit: 'Log in', hint: "The first token is in the server's data directory, in the file", expired: 'Your login has ended. Log in again to go on where you were.',
    wrong: 'This token is not valid.', many: 'Too many failed logins; wait a little.',
  },
  nowhere: { title: 'There is nothing here', text: 'The address may be mistyped, or what was here is gone.' },
  palette: {
    title: 'Commands', hint: 'Search or go to', placeholder: 'Search releases, agents, pages', none: 'Nothing found', go: 'Go to', do: 'Do',
    offline: 'Agents that are offline', theme: 'Switch between light and dark',
  },
  overview: {
    title: 'Overview', fine: 'Nothing is wrong right now.', first: 'No agents yet', firstText: 'An agent on each host carries out releases and commands. Make a token, and paste the line on a host.',
    unhealthy: 'The server is degraded: {checks}', failing: '{n} release that is running has failed hosts | {n} releases that are running have failed hosts',
    waiting: '{n} release waits for a person | {n} releases wait for a person', failed: '{n} release did not succeed in the last 24 hours | {n} releases did not succeed in the last 24 hours',
    offline: '{n} agent is offline | {n} agents are offline', rolling: 'release under way | releases under way', jobs: 'command running | commands running', online: 'agents online',
    now: 'Rolling out now', nothing: 'Nothing is being rolled out.', commands: 'Commands running', recentFailed: 'Did not succeed, last 24 hours', recentDone: 'Succeeded, last 24 hours', all: 'All',
  },
  join: {
    title: 'Join agents', uses: 'Agents', hours: 'Holds for hours', pattern: 'Ids that match', make: 'Make a token', again: 'Make another', paste: 'Paste this on each host, once quic-client is there:',
    copy: 'Copy', holds: 'For {n} agents, expires', once: 'It cannot be shown again.',
  },
  list: { newer: 'Newer', older: 'Older', before: 'Before', next: 'Next' },
  releases: {
    project: 'Project', anyStatus: 'Any status', active: 'Only what has not ended', total: '{n} release | {n} releases', noMatch: 'No release matches', clear: 'Show all',
    none: 'No releases yet', noneText: 'A release rolls one version of a project out to hosts. Until the console can start one, quic-ctl does:',
  },
  release: {
    title: 'Release', uninstall: 'uninstall', from: 'from {version}', to: 'to {version}', started: 'Started', took: 'took {time}', progress: 'Progress', budget: 'failure budget',
    rate: '{n} hosts/s', left: 'about {time} left', soakLeft: 'soaks for {time} more', waits: 'Promote it, or roll it back', hosts: 'Hosts', details: 'Details', steps: 'Steps',
    gone: 'There is no such release', tab: { log: 'Log', hosts: 'Hosts', plan: 'Plan' },
  },
  act: {
    promote: 'Promote', pause: 'Pause', resume: 'Resume', abort: 'Abort', rollback: 'Roll back',
    promoteTitle: 'Promote {project} {version}', promoteText: 'Goes on from the canary to the waves: {left} more hosts of {total}.',
    pauseTitle: 'Pause {project} {version}', pauseText: 'Nothing new starts until it is resumed. {running} hosts that are at work finish.',
    abortTitle: 'Abort {project} {version}', abortText: 'Nothing new starts, and what runs on {running} hosts is stopped. {n} hosts that were touched stay as they are; {left} are skipped. This cannot be resumed.',
    rollbackTitle: 'Roll back {n} hosts of {project}', rollbackText: 'The {n} hosts that were touched go back {to}, or to what they ran before. {left} that have not begun are skipped.',
    resumeTitle: 'Resume {project} {version}', resumeText: '',
  },
  failures: { title: 'Failures', none: 'No host has failed.', more: 'and {n} more reasons' },
  grid: { label: '{n} hosts:' },
  targets: {
    find: 'Host', any: 'Any state', anyReason: 'Any reason', total: '{n} host | {n} hosts', none: 'No host matches', host: 'Host', state: 'State', wave: 'Wave', canary: 'canary', before: 'Before',
    took: 'Took', ended: 'Ended', why: 'Why',
  },
  host: { none: 'This host is not part of this release.', exit: 'exit {code}', agent: 'Agent', began: 'Began', log: 'In the log' },
  output: { title: 'Output', none: 'It printed nothing.', cut: 'Only the end is shown; the rest is being fetched.' },
  plan: {
    targets: 'Targets', listed: '{n} listed', canary: 'Canary', canaryText: '{percent} %, soak {soak}, promotion {promote}', noCanary: 'none', auto: 'by itself', manual: 'by a person',
    waves: 'Waves', parallel: 'At once', failures: 'Failures tolerated', stop: 'stop', rollback: 'roll back', offline: 'Hosts that are offline', offline_skip: 'are skipped', offline_fail: 'count as failed', env: 'Environment',
  },
  log: {
    title: 'Log', search: 'Search the log', stream: 'Stream', all: 'all', allHosts: 'All hosts', lines: '{n} line | {n} lines', following: 'following', paused: 'paused', waiting: 'connecting', ended: 'complete',
    fresh: '{n} new line | {n} new lines', from: 'Shown from record {n} on.', earlier: 'Show earlier ones', gap: 'Records {range} are no longer kept', none: 'Nothing was printed.', noMatch: 'No line matches.',
    soon: 'What hosts print appears here.', missing: 'The logs of {n} hosts have not arrived in full: {hosts}',
  },
  fleet: {
    counts: '{online} of {total} online', run: 'Run a command on {n} agent | Run a command on {n} agents', selector: 'env=prod,os=linux,!maintenance', selectorLabel: 'Selector', search: 'Id, host, address', status: 'Status', any: 'all',
    shown: '{n} agent | {n} agents', saveFilter: 'Save this filter', save: 'Save', name: 'Name of the filter', forget: 'Forget {name}', clear: 'Show all', noMatch: 'No agent matches', none: 'No agents yet',
    noneText: 'Make a token, and paste the line on a host.', pickAll: 'Pick all', col: { status: 'Status', id: 'Id', host: 'Host name', runs: 'Runs', labels: 'Labels', os: 'System', agent: 'Agent', seen: 'Last heard' },
  },
  agent: {
    gone: 'There is no such agent', run: 'Run a command', revoke: 'Revoke', revokeTitle: 'Revoke {id}', revokeText: 'Its certificates end, and so does its session. It joins again only with a token that may replace it.',
    runs: 'What it runs', runsNothing: 'Nothing was installed by a release.', is: 'What it is', address: 'Address', connected: 'Connected', joined: 'Joined', details: 'Details', history: 'History', facts: 'Facts',
    release: 'release', command: 'command', nothing: 'Nothing has happened here yet', noFacts: 'It has told no facts',
  },
  installation: { failed: '{version} failed', unknown: '{version}: outcome unknown' },
  command: {
    new: 'Run a command', total: '{n} command | {n} commands', none: 'No commands yet', noneText: 'Run a line for the shell, or ask hosts what they are, on as many as a selector picks.', noMatch: 'No command matches', gone: 'There is no such command',
    type: 'Command', line: 'Line for the shell', payload: 'Payload (JSON)', notObject: 'This must be a JSON object.', targets: 'Where', bySelector: 'Selector', byList: 'List of ids', idsHint: 'web-1 web-2 web-3', pickHint: 'Say where: a selector such as env=prod, or * for every agent.',
    hits: 'picks {n} host | picks {n} hosts', unknown: '{n} not known: {ids}', how: 'How', batch: 'As a batch: it goes on when this page is closed', stream: 'As a stream: it is cancelled when this page is closed',
    options: 'Options', timeout: 'Seconds for each host', concurrency: 'Hosts at once', retries: 'Retries', maxFailures: 'Failures tolerated', waitOffline: 'Wait for offline hosts', default: 'default', refused: 'It was not taken',
    run: 'Run', runOn: 'Run on {n} host | Run on {n} hosts', cancel: 'Cancel', cancelTitle: 'Cancel this command on {n} host | Cancel this command on {n} hosts', cancelText: 'Nothing new starts, and what runs is stopped.', retry: 'Retry what failed', again: 'Run again',
    export: 'Export', held: 'Is cancelled when this page is closed', tab: { results: 'Results', log: 'Log' }, noResults: 'No results.', waiting: 'Results appear here as hosts finish, first finished first.', close: 'Close',
    kind: { exec_shell: 'a line for the shell', system_info: 'what a host is, and how busy', system_collect_info: 'its hardware', process_list: 'what runs on it', container_list: 'its containers', container_logs: 'what a container printed' },
  },
}

export type Messages = typeof en
