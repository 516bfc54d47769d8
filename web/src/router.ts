import { createRouter, createWebHistory } from 'vue-router'
import { useSession } from '@/stores/session'

export const router = createRouter({
  history: createWebHistory(),
  routes: [
    { path: '/', name: 'overview', component: () => import('@/pages/OverviewPage.vue') },
    { path: '/fleet', name: 'fleet', component: () => import('@/pages/FleetPage.vue') },
    { path: '/fleet/:id', name: 'agent', component: () => import('@/pages/AgentPage.vue'), props: true },
    { path: '/releases', name: 'releases', component: () => import('@/pages/ReleasesPage.vue') },
    { path: '/releases/:id', name: 'release', component: () => import('@/pages/ReleasePage.vue'), props: true },
    { path: '/releases/new', name: 'newRelease', component: () => import('@/pages/NewReleasePage.vue') },
    { path: '/projects', name: 'projects', component: () => import('@/pages/ProjectsPage.vue') },
    { path: '/projects/:project', name: 'project', component: () => import('@/pages/ProjectPage.vue'), props: true },
    { path: '/schedules', name: 'schedules', component: () => import('@/pages/SchedulesPage.vue') },
    { path: '/schedules/:id', name: 'schedule', component: () => import('@/pages/SchedulePage.vue'), props: true },
    { path: '/system', name: 'system', component: () => import('@/pages/SystemPage.vue') },
    { path: '/commands', name: 'commands', component: () => import('@/pages/CommandsPage.vue') },
    { path: '/commands/new', name: 'newCommand', component: () => import('@/pages/NewCommandPage.vue') },
    { path: '/commands/:id', name: 'command', component: () => import('@/pages/CommandPage.vue'), props: true },
    { path: '/login', name: 'login', component: () => import('@/pages/LoginPage.vue'), meta: { open: true } },
    { path: '/:rest(.*)*', name: 'nowhere', component: () => import('@/pages/NowherePage.vue') },
  ],
  scrollBehavior: (to, from, saved) => saved ?? (to.path === from.path ? undefined : { top: 0 }),
})

router.beforeEach(async (to) => {
  const session = useSession()
  if (to.meta.open || session.loggedIn) return true
  try {
    if (await session.load()) return true
  } catch {
    return true // The server is away; the page says so, and recovers.
  }
  return { name: 'login', query: to.fullPath === '/' ? {} : { next: to.fullPath } }
})

/** next gives where a login leads on to: a path on this server, or the first page. */
export function nextAddress(value: unknown): string {
  if (typeof value !== 'string' || !value.startsWith('/') || value.startsWith('//') || /[\\\t\r\n]/.test(value)) return '/'
  return value.startsWith('/login') ? '/' : value
}

/** Whether the address is the server's own, beside the console. */
export const beside = (address: string) => /^\/(temporal|api|openapi|health|metrics|ready|live)([/.?-]|$)/.test(address)
