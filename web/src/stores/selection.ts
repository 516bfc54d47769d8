import { defineStore } from 'pinia'
import { ref } from 'vue'

/** How many ids an address has at most. */
export const few = 20

/** Agents that were picked in the fleet, for a command or a release: too many for an address. */
export const useSelection = defineStore('selection', () => {
  const clients = ref<string[]>([])
  return { clients }
})
