import { defineStore } from 'pinia'
import { ref } from 'vue'

/** Agents that were picked in the fleet, for a command: too many for an address. */
export const useSelection = defineStore('selection', () => {
  const clients = ref<string[]>([])
  return { clients }
})
