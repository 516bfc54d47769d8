#!/usr/bin/env bash
# Lists this module's packages, but for the end-to-end tests and those of make test-integration: "light" ones, and "heavy" ones that
# link the Temporal server, themselves or in their tests.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=$(go list ./... | grep -vE '/internal/(e2e|weaknet)$|/executor/[a-z]+/live$' | sort)
heavy=$(go list -test -f '{{.ImportPath}} {{join .Deps " "}}' ./... |
	grep ' go\.temporal\.io/server/' | cut -d' ' -f1 | sed 's/\.test$//' | sort -u)
case ${1-} in
light) comm -23 <(echo "$packages") <(echo "$heavy") ;;
heavy) comm -12 <(echo "$packages") <(echo "$heavy") ;;
*) echo "usage: $0 light|heavy" >&2 && exit 2 ;;
esac
