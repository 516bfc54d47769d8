#!/usr/bin/env bash
# Generates everything that is generated and fails if that changed a file.
set -euo pipefail
cd "$(dirname "$0")/.."

generated=(proto api/openapi.yaml internal/apiclient/client.gen.go config web/src/api/schema.d.ts web/src/api/specs.json)
before=$(mktemp -d)
trap 'rm -rf "$before"' EXIT

cp -r --parents "${generated[@]}" "$before"
make generate

status=0
for path in "${generated[@]}"; do
	diff -ru "$before/$path" "$path" || status=1
done
if [ $status != 0 ]; then
	echo "generated files differed from their source; they are up to date now: commit them" >&2
	exit 1
fi
echo "generated files are up to date"
