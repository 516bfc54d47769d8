#!/usr/bin/env bash
# Builds the console into web/dist. Does nothing where that was built from the same sources: its .inputs holds their hash.
#   web.sh build       install what package-lock.json names, and build
#   web.sh install     only the first of these
#   web.sh generate    write src/api/schema.d.ts and specs.json from api/openapi.yaml
set -euo pipefail
cd "$(dirname "$0")/../web"

# inputs hashes what a build is made from, by name and content.
inputs() {
	find . \( -name node_modules -o -name dist -o -name e2e \) -prune -o -type f ! -name '*.go' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c1-32
}

install() {
	local lock
	lock=$(sha256sum package-lock.json | cut -c1-32)
	[ "$(cat node_modules/.lock 2>/dev/null)" != "$lock" ] || return 0
	../scripts/install-deps.sh nodejs npm
	npm ci --no-audit --no-fund --ignore-scripts
	echo "$lock" >node_modules/.lock
}

case ${1-} in
build)
	now=$(inputs)
	if [ -e dist/index.html ] && [ "$(cat dist/.inputs 2>/dev/null)" = "$now" ]; then
		exit 0
	fi
	install
	npm run --silent check
	npm run --silent build
	echo "$now" >dist/.inputs
	;;
install) install ;;
generate) install && npm run --silent generate ;;
*) echo "usage: $0 build|install|generate" >&2 && exit 2 ;;
esac
