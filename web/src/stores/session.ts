import { defineStore } from 'pinia'
import { computed, ref } from 'vue'
import { api, ApiError, problem, take } from '@/api/client'
import type { UserSession } from '@/api/types'

/** Who is logged in. */
export const useSession = defineStore('session', () => {
  const current = ref<UserSession>()
  const loggedIn = computed(() => current.value !== undefined)

  /** load asks who is logged in; false: nobody. */
  async function load(): Promise<boolean> {
    try {
      current.value = await take(api.GET('/api/session'))
      return true
    } catch (e) {
      if (e instanceof ApiError && e.status === 401) {
        current.value = undefined
        return false
      }
      throw e
    }
  }

  async function login(token: string): Promise<void> {
    const response = await fetch('/login', {
      method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ token }),
    })
    if (!response.ok) throw problem(response.status, await response.json().catch(() => undefined))
    await load()
  }

  async function logout(): Promise<void> {
    await fetch('/logout', { method: 'POST', headers: { 'Content-Type': 'application/json' } })
    current.value = undefined
  }

  /** The address of a workflow in Temporal's UI, if there is one. */
  function workflowURL(id: string): string | undefined {
    const s = current.value
    if (!s?.temporal_url || !s.temporal_namespace) return undefined
    return `${s.temporal_url}/namespaces/${encodeURIComponent(s.temporal_namespace)}/workflows/${encodeURIComponent(id)}`
  }

  return { current, loggedIn, load, login, logout, workflowURL }
})
