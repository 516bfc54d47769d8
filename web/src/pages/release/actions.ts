import { useMutation, useQueryClient } from '@tanstack/vue-query'
import { computed, ref, type Ref } from 'vue'
import { useI18n } from 'vue-i18n'
import { useRouter } from 'vue-router'
import { api, take } from '@/api/client'
import type { Task } from '@/api/types'
import { useFormat } from '@/lib/format'
import { told } from '@/lib/label'
import { offered, touched, undone, type Action } from '@/lib/rollout'

/** useActions is what may be done to a task, and how that is asked for. previous: the version to which a rollback goes; reread is called where it could not be done. */
export function useActions(task: Readonly<Ref<Task | undefined>>, previous: Readonly<Ref<string | undefined>>, reread: () => void) {
  const { t } = useI18n()
  const { num } = useFormat()
  const queries = useQueryClient()
  const router = useRouter()
  const asked = ref<Exclude<Action, 'resume'>>()
  const asking = ref(false)
  const problem = ref('')
  const act = useMutation({
    mutationFn: ({ action, reason }: { action: Action; reason: string }) => {
      const params = { path: { task_id: task.value!.id } }
      if (action === 'retry') return take<Task>(api.POST('/api/release/tasks/{task_id}/retry', { params }))
      return take<Task>(api.POST(`/api/release/tasks/{task_id}/${action}`, { params, body: reason ? { reason } : {} }))
    },
    onSuccess: (changed, { action }) => {
      if (asked.value === action) asking.value = false // and not the question that was asked meanwhile
      queries.setQueryData(['task', changed.id], changed)
      if (changed.id !== task.value?.id) void router.push({ name: 'release', params: { id: changed.id } })
    },
    onError: (e) => {
      problem.value = told(e, t)
      reread()
    },
  })
  return {
    buttons: computed(() => (task.value ? offered(task.value) : [])),
    act,
    /** The action that a question is about, whether it is open, and what it says. */
    asked,
    asking,
    about: computed(() => {
      const x = task.value
      if (!x || !asked.value) return { title: '', text: '' }
      const n = asked.value === 'retry' ? undone(x.counts) : touched(x.counts)
      const words = {
        project: x.project, version: x.version ?? t('release.uninstall'), n: num(n), running: num(x.counts.running), left: num(x.counts.pending), total: num(x.counts.total),
        parallel: num(x.strategy.max_parallel ?? 100), to: previous.value ? t('release.to', { version: previous.value }) : '',
      }
      return { title: t(`act.ask.${asked.value}`, words, n), text: t(`act.askText.${asked.value}`, words, n) }
    }),
    /** Why the last one could not be done. */
    problem,
    ask(action: Action) {
      problem.value = ''
      // What can be undone is one step.
      if (action === 'resume') return act.mutate({ action, reason: '' })
      asked.value = action
      asking.value = true
    },
  }
}
