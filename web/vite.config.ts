import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import vue from '@vitejs/plugin-vue'
import Components from 'unplugin-vue-components/vite'
import { ElementPlusResolver } from 'unplugin-vue-components/resolvers'
import type { Plugin } from 'vite'
import { defineConfig } from 'vitest/config'

const server = 'http://localhost:8475'

/** Writes a .gz beside each file that is worth it; the server sends it as it is. */
function precompress(): Plugin {
  const zip = (dir: string) => {
    for (const name of readdirSync(dir)) {
      const path = join(dir, name)
      if (statSync(path).isDirectory()) {
        zip(path)
      } else if (/\.(js|css|html|svg)$/.test(name) && statSync(path).size > 1024) {
        writeFileSync(path + '.gz', gzipSync(readFileSync(path), { level: 9 }))
      }
    }
  }
  return { name: 'precompress', apply: 'build', closeBundle: () => zip('dist') }
}

export default defineConfig({
  plugins: [
    vue(),
    Components({ dts: 'src/components.d.ts', dirs: [], resolvers: [ElementPlusResolver({ importStyle: process.env.VITEST ? false : 'css' })] }),
    precompress(),
  ],
  resolve: { alias: { '@': new URL('./src', import.meta.url).pathname } },
  define: {
    __VUE_I18N_FULL_INSTALL__: 'false',
    __VUE_I18N_LEGACY_API__: 'false',
    __INTLIFY_DROP_MESSAGE_COMPILER__: 'false',
    __VUE_OPTIONS_API__: 'true', // Element Plus has a few
  },
  build: {
    target: 'es2022',
    assetsInlineLimit: 0, // the policy allows no data: scripts or fonts
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 900,
    reportCompressedSize: false,
  },
  server: {
    port: 3000,
    proxy: Object.fromEntries(
      ['/api', '/logout', '/temporal', '/health', '/openapi.json', '/openapi.yaml'].map((path) => [path, { target: server }]).concat([
        // The page is the console's own, what it posts is not.
        ['/login', { target: server, bypass: (r: { method?: string; url?: string }) => (r.method === 'GET' ? r.url : undefined) }],
      ] as never),
    ),
  },
  test: { environment: 'happy-dom', include: ['src/**/*.test.ts'], restoreMocks: true },
})
