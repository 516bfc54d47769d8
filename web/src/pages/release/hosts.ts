import { api, take } from '@/api/client'

const page = 200

/** useHostAt gives the id of a task's host by its place in the grid; each page of them is read once, as somebody asks. */
export function useHostAt(task: string): (index: number) => Promise<string | undefined> {
  const pages = new Map<number, Promise<string[]>>()
  function read(n: number): Promise<string[]> {
    const known = pages.get(n)
    if (known) return known
    const ids = take(api.GET('/api/release/tasks/{task_id}/targets', { params: { path: { task_id: task }, query: { limit: page, offset: n * page } } })).then((x) => x.targets.map((y) => y.client_id))
    ids.catch(() => pages.delete(n))
    pages.set(n, ids)
    return ids
  }
  return (index) => read(Math.floor(index / page)).then((ids) => ids[index % page]).catch(() => undefined)
}
