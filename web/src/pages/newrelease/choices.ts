import { keepPreviousData, useQuery } from '@tanstack/vue-query'
import { computed, ref, watch } from 'vue'
import { api, take } from '@/api/client'
import { defaultsOf, type Draft } from '@/lib/newtask'

/** useChoices is what there is to choose from, and what follows from what was chosen. */
export function useChoices(draft: Draft) {
  const name = computed(() => draft.project)
  const projectWords = ref('')
  const projects = useQuery({
    queryKey: ['projects', 'choose', projectWords],
    queryFn: ({ signal }) => take(api.GET('/api/release/projects', { params: { query: { search: projectWords.value || undefined, limit: 50 } }, signal })),
    placeholderData: keepPreviousData,
  })
  const project = useQuery({
    queryKey: ['project', name, 'choose'],
    queryFn: ({ signal }) => take(api.GET('/api/release/projects/{project}', { params: { path: { project: draft.project } }, signal })),
    enabled: computed(() => draft.project !== ''), retry: false,
  })
  const known = computed(() => project.data.value !== undefined)
  const versionWords = ref('')
  const versions = useQuery({
    queryKey: ['versions', name, 'choose', versionWords],
    queryFn: ({ signal }) => take(api.GET('/api/release/projects/{project}/versions', { params: { path: { project: draft.project }, query: { search: versionWords.value || undefined, limit: 50 } }, signal })),
    enabled: known,
  })
  const environments = useQuery({
    queryKey: ['environments', name, 'choose'],
    queryFn: ({ signal }) => take(api.GET('/api/release/projects/{project}/environments', { params: { path: { project: draft.project }, query: { limit: 200 } }, signal })),
    enabled: known,
  })
  const environment = computed(() => environments.data.value?.environments.find((e) => e.name === draft.environment || e.id === draft.environment))
  const defaults = computed(() => defaultsOf(environment.value?.strategy))
  watch(() => defaults.value.canary, (c) => {
    // Nothing is turned off where there is nothing.
    if (!c && draft.canary === 'none' && !environments.isPending.value) draft.canary = ''
  })
  return {
    /** What was typed to find one, and those that were found. */
    projectWords,
    projects: computed(() => projects.data.value?.projects ?? []),
    versionWords,
    versions: computed(() => versions.data.value?.versions ?? []),
    environments: computed(() => environments.data.value?.environments ?? []),
    /** There is nothing that could be released. */
    none: computed(() => projects.data.value?.total === 0 && projectWords.value === '' && draft.project === ''),
    /** Of the project that was chosen: what it is, and why it cannot be read. */
    type: computed(() => (draft.project !== '' ? project.data.value?.type : undefined)),
    problem: computed(() => project.error.value?.message),
    /** The environment that was chosen, and what counts where the draft says nothing. */
    environment,
    defaults,
    pickProject(picked: string) {
      Object.assign(draft, { project: picked ?? '', version: '', environment: '', override: {} })
      versionWords.value = ''
    },
  }
}
export type Choices = ReturnType<typeof useChoices>
