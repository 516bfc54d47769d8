#!/usr/bin/env bash
# Installs what the tests need and this machine lacks: install-deps.sh postgresql gcc …
# As root on Debian it does so with apt-get; otherwise it says what to install. Does nothing where all is there.
set -euo pipefail

present() {
	case $1 in
	postgresql) command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null ;;
	ansible-core) command -v ansible >/dev/null ;;
	openssh-server) [ -x /usr/sbin/sshd ] ;;
	nodejs) command -v node >/dev/null ;;
	iproute2) command -v ip >/dev/null && command -v tc >/dev/null ;;
	docker.io) command -v dockerd >/dev/null ;;
	busybox-static) command -v busybox >/dev/null && ! ldd "$(command -v busybox)" >/dev/null 2>&1 ;;
	fonts-wqy-zenhei) compgen -G '/usr/share/fonts/*/*/*' | grep -qiE 'wqy|cjk|noto.*sc' ;; # any with Chinese
	util-linux) command -v nsenter >/dev/null ;;
	*) command -v "$1" >/dev/null ;;
	esac
}

missing=()
for name in "$@"; do
	present "$name" || missing+=("$name")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "missing: ${missing[*]}; install with your system's package manager (Debian: apt-get install ${missing[*]})" >&2
	exit 1
fi

echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# RUNLEVEL=1: the package must not start a database server of its own; the tests start theirs.
RUNLEVEL=1 apt-get install -q -y --no-install-recommends "${missing[@]}"
