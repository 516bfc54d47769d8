import { inject, type InjectionKey } from 'vue'
import type { Live } from '@/api/live'

export const liveKey: InjectionKey<Live> = Symbol('live')

/** The connection that tells what has changed. */
export function useLive(): Live {
  const live = inject(liveKey)
  if (!live) throw new Error('there is no live connection here')
  return live
}
