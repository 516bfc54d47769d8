export interface FleetFilter {
  selector: string
  status: '' | 'online' | 'reconnecting' | 'offline'
  search: string
}

/** The selector of all that a filter shows, or undefined where none can say it: a search looks into addresses, too. */
export function selectorOf(f: FleetFilter): string | undefined {
  if (f.search.trim() !== '') return undefined
  const terms = [f.selector.trim() === '*' ? '' : f.selector.trim(), f.status === '' ? '' : `status=${f.status}`].filter(Boolean)
  return terms.join(',') || '*'
}

/** The pages that rows from first to last are on. */
export function pagesOf(first: number, last: number, size: number, total: number): number[] {
  const pages: number[] = []
  const end = Math.min(last, Math.max(0, total - 1))
  for (let p = Math.floor(Math.max(0, first) / size); p * size <= end; p++) pages.push(p)
  return pages.length > 0 ? pages : [0]
}
