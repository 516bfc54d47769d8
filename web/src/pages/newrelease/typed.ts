import { onScopeDispose, reactive, toRaw, watch } from 'vue'
import { useRoute, useRouter } from 'vue-router'
import type { Schedule } from '@/api/types'
import { idsOf } from '@/lib/command'
import { draftOf, emptyDraft, onceKey, type Draft, type OnceKey } from '@/lib/newtask'
import { emptyWhen, whenOf, type When } from '@/lib/when'
import { few, useSelection } from '@/stores/selection'

/** What was typed, as the entry in the browser's history keeps it. */
export interface Kept {
  draft: Draft
  when: When
  /** Of the request that was sent last, and not answered. */
  key?: OnceKey
}

/** begun gives what a form begins with: what the address says goes before what was kept. picked: the ids of the selection. */
export function begun(query: Record<string, unknown>, picked: string[], kept?: Kept): { draft: Draft; when: When } {
  const said = (name: string) => (typeof query[name] === 'string' ? (query[name] as string) : '')
  const draft: Draft = { ...emptyDraft(), ...kept?.draft }
  const when: When = { ...emptyWhen(), ...kept?.when }
  for (const part of ['project', 'version', 'environment', 'selector'] as const) if (said(part)) draft[part] = said(part)
  if (said('action') === 'uninstall') draft.action = 'uninstall'
  if (said('clients') || (said('picked') && picked.length > 0)) {
    draft.by = 'clients'
    draft.clients = (said('clients') ? said('clients').split(',') : picked).join('\n')
  }
  const kind = said('when')
  if (kind === 'once' || kind === 'cron') when.kind = kind
  return { draft, when }
}

/** addressOf gives the parts of the address that a link should have; '' for those to be left out. */
export function addressOf(draft: Draft, when: When): Record<string, string> {
  const ids = draft.by === 'clients' ? idsOf(draft.clients) : []
  return {
    project: draft.project,
    version: draft.action === 'deploy' ? draft.version : '',
    environment: draft.environment,
    action: draft.action === 'uninstall' ? 'uninstall' : '',
    selector: draft.by === 'selector' ? draft.selector.trim() : '',
    clients: ids.length <= few ? ids.join(',') : '',
    picked: ids.length > few ? '1' : '',
    when: when.kind === 'now' ? '' : when.kind,
  }
}

/** useTyped is what was typed of a new release. The address has what a link should have; the entry in the browser's history the rest, so that a reload loses nothing. */
export function useTyped() {
  const route = useRoute()
  const router = useRouter()
  const selection = useSelection()
  const kept = history.state?.newRelease as Kept | undefined
  const from = begun(route.query, selection.clients, kept)
  const draft = reactive(from.draft)
  const when = reactive(from.when)
  let key = kept?.key
  let timer: ReturnType<typeof setTimeout> | undefined

  function keep() {
    const state: Kept = { draft: JSON.parse(JSON.stringify(toRaw(draft))) as Draft, when: { ...when }, key }
    try {
      history.replaceState({ ...history.state, newRelease: state }, '')
    } catch {
      // Too much for this browser: a reload begins anew.
    }
  }
  function say() {
    const now = router.currentRoute.value
    if (now.name !== 'newRelease') return
    const next = { ...now.query } as Record<string, string>
    for (const [name, value] of Object.entries(addressOf(draft, when))) {
      if (value) next[name] = value
      else delete next[name]
    }
    if (next.picked) selection.clients = idsOf(draft.clients)
    if (new URLSearchParams(next).toString() !== new URLSearchParams(now.query as Record<string, string>).toString()) void router.replace({ query: next })
  }
  const hush = () => clearTimeout(timer)
  watch([draft, when], () => {
    hush()
    timer = setTimeout(() => {
      keep()
      say()
    }, 250)
  }, { deep: true })
  onScopeDispose(hush)

  return {
    draft,
    when,
    /** edit takes what a schedule says in place of what is there, unless that was kept over a reload. */
    edit(s: Schedule) {
      if (kept) return
      Object.assign(draft, draftOf(s.task), { project: s.project })
      Object.assign(when, whenOf(s))
    },
    /** keyOf gives the key of a request, and keeps it before that goes: what comes after a reload is the same request. */
    keyOf(body: string): string {
      key = onceKey(key, body)
      keep()
      return key.value
    },
    /** answered says that the request of the key is done: the same once more is another one. */
    answered() {
      key = undefined
      hush()
      keep()
    },
    /** hush ends the keeping of what was typed, as the page is left. */
    hush,
  }
}
export type Typed = ReturnType<typeof useTyped>
