/** nextVersion suggests what comes after a version: its last number and one. Empty where it has none. */
export function nextVersion(name: string): string {
  return /\d/.test(name) ? name.replace(/(\d+)(?!.*\d)/, (n) => String(BigInt(n) + 1n).padStart(n.length, '0')) : ''
}
