import { QueryClient, VueQueryPlugin } from '@tanstack/vue-query'
import { createPinia } from 'pinia'
import { createApp } from 'vue'
import 'element-plus/es/components/base/style/css'
import 'element-plus/theme-chalk/dark/css-vars.css'
import './style.css'
import { ApiError, onExpired } from './api/client'
import { Live } from './api/live'
import App from './App.vue'
import { i18n } from './i18n'
import { router } from './router'
import { liveKey } from './stores/live'
import { useSession } from './stores/session'
import { useUI } from './stores/ui'

const queries = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: Infinity, // the events say when it is not
      gcTime: 60_000,
      refetchOnWindowFocus: false,
      refetchOnReconnect: false,
      retry: (count, error) => count < 5 && !(error instanceof ApiError && error.status >= 400 && error.status < 500),
      retryDelay: (count) => Math.min(300 * 2 ** count, 5_000),
      networkMode: 'always',
    },
    mutations: { networkMode: 'always' },
  },
})
const live = new Live(queries)

const app = createApp(App)
app.use(createPinia())
app.use(VueQueryPlugin, { queryClient: queries, enableDevtoolsV6Plugin: false })
app.use(i18n)
app.use(router)
app.provide(liveKey, live)

onExpired(() => {
  const session = useSession()
  live.stop()
  session.current = undefined
  useUI().paletteOpen = false
  const at = router.currentRoute.value
  if (at.name === 'login' || at.matched.length === 0) return
  void router.replace({ name: 'login', query: at.fullPath === '/' ? { expired: '1' } : { next: at.fullPath, expired: '1' } }).then(() => queries.clear())
})
app.mount('#app')
