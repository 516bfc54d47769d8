import { defineStore } from 'pinia'
import { computed, ref, watch } from 'vue'

export type Theme = 'light' | 'dark' | 'system'
export type Language = 'en' | 'zh'

/** What a person chose once and finds again: kept in this browser. */
function kept<T>(name: string, initial: T) {
  let stored: T = initial
  try {
    const text = localStorage.getItem(`quicflow.${name}`)
    if (text !== null) stored = JSON.parse(text) as T
  } catch {
    // It may be forbidden, or of another version: begin anew.
  }
  const value = ref(stored)
  watch(value, (v) => {
    try {
      localStorage.setItem(`quicflow.${name}`, JSON.stringify(v))
    } catch {
      // Then it holds for this visit only.
    }
  }, { deep: true })
  return value
}

export interface SavedFilter {
  name: string
  query: Record<string, string>
}

export const useUI = defineStore('ui', () => {
  const theme = kept<Theme>('theme', 'system')
  const language = kept<Language>('language', navigator.language.startsWith('zh') ? 'zh' : 'en')
  const savedFilters = kept<SavedFilter[]>('fleet.filters', []) as unknown as ReturnType<typeof ref<SavedFilter[]>>
  const narrow = kept('nav.narrow', false) as unknown as ReturnType<typeof ref<boolean>>
  const system = window.matchMedia('(prefers-color-scheme: dark)')
  const systemDark = ref(system.matches)
  system.addEventListener('change', (e) => (systemDark.value = e.matches))
  const dark = computed(() => theme.value === 'dark' || (theme.value === 'system' && systemDark.value))
  const paletteOpen = ref(false)
  watch(dark, (d) => document.documentElement.classList.toggle('dark', d), { immediate: true })
  watch(language, (l) => document.documentElement.setAttribute('lang', l === 'zh' ? 'zh-CN' : 'en'), { immediate: true })
  return { theme, language, savedFilters, narrow, dark, paletteOpen }
})
