#!/usr/bin/env bash
# Sets kernel and limits for a hub of many agents. See --help.
set -euo pipefail

usage() {
	cat <<'TEXT'
usage: tune-system.sh [persist | undo] [--dry-run]

Prepares a Linux host for a hub with 100,000 agents and more: file descriptors, UDP buffers, ports, memory. A value that is
large enough is kept, so a second run changes nothing. Prints each value as old → new.

  (nothing)    change the running kernel, until the next boot
  persist      that, and keep it: /etc/sysctl.d/90-quicflow.conf, /etc/security/limits.d/90-quicflow.conf
  undo         put back what was there before the first run, and remove these two files
  --dry-run    print what would be changed, and change nothing

What was there before is kept in /var/lib/quicflow/tune-system.state. The variable ROOT names another directory to work in, in
place of /.
TEXT
}

fail() {
	echo "tune-system.sh: $*" >&2
	exit 1
}

root=${ROOT:-}
root=${root%/}
state=$root/var/lib/quicflow/tune-system.state
sysctl_file=$root/etc/sysctl.d/90-quicflow.conf
limits_file=$root/etc/security/limits.d/90-quicflow.conf
mark="# Written by QuicFlow's scripts/tune-system.sh, which removes it again: tune-system.sh undo"
files=1000000 # file descriptors of a process

# Each setting: key, how its value is meant (min: at least, max: at most, is: exactly), value.
settings=(
	"fs.nr_open min 1048576" # the most that a process may be allowed; must hold $files
	"fs.file-max min 2097152"
	"net.core.rmem_max min 16777216" # quic-go asks for 7 MiB a socket
	"net.core.wmem_max min 16777216"
	"net.core.rmem_default min 1048576"
	"net.core.wmem_default min 1048576"
	"net.core.netdev_max_backlog min 30000"
	"net.ipv4.udp_rmem_min min 16384"
	"net.ipv4.udp_wmem_min min 16384"
	"net.ipv4.ip_local_port_range is 10000 65535"
	"vm.max_map_count min 262144"
	"vm.swappiness max 10" # a hub that is swapped out misses heartbeats
)

action=apply dry=''
for argument in "$@"; do
	case $argument in
	-h | --help) usage && exit 0 ;;
	--dry-run) dry=1 ;;
	persist | undo)
		[ "$action" = apply ] || fail "persist and undo exclude each other and themselves"
		action=$argument
		;;
	*) fail "unknown argument $argument; see --help" ;;
	esac
done

status=0
complain() {
	echo "tune-system.sh: $*" >&2
	status=1
}

# path_of is where the kernel shows a setting.
path_of() { echo "$root/proc/sys/${1//.//}"; }

# value_of reads a setting with single spaces between its numbers.
value_of() { tr -s '[:space:]' ' ' <"$(path_of "$1")" | sed 's/ $//'; }

# set_value changes the running kernel, and says so.
set_value() { # key, old, new
	if [ -n "$dry" ]; then
		echo "would change $1: $2 → $3"
	elif { echo "$3" >"$(path_of "$1")"; } 2>/dev/null && [ "$(value_of "$1")" = "$3" ]; then
		echo "$1: $2 → $3"
	else
		complain "$1 could not be changed from $2 to $3 (are you root, and not in a container?)"
	fi
}

# remember keeps the value from before the first change.
remember() { # key, value
	[ -z "$dry" ] || return 0
	if ! grep -qs "^$1 = " "$state"; then
		mkdir -p "$(dirname "$state")"
		echo "$1 = $2" >>"$state"
	fi
}

# wanted is the value that a setting shall have.
wanted() { # how, old, value
	case $1 in
	min) echo $(($2 > $3 ? $2 : $3)) ;;
	max) echo $(($2 < $3 ? $2 : $3)) ;;
	is) echo "$3" ;;
	esac
}

apply() {
	local setting key how value old new
	for setting in "${settings[@]}"; do
		read -r key how value <<<"$setting"
		if [ ! -e "$(path_of "$key")" ]; then
			echo "$key: this kernel, or this container, does not have it"
			continue
		fi
		old=$(value_of "$key")
		new=$(wanted "$how" "$old" "$value")
		lines+=("$key = $new")
		if [ "$old" = "$new" ]; then
			echo "$key: $old, kept"
			continue
		fi
		remember "$key" "$old"
		set_value "$key" "$old" "$new"
	done
}

# put writes a file of ours.
put() { # path, text
	if [ -e "$1" ] && ! grep -qsxF "$mark" "$1"; then
		complain "$1 is there and not of this script: it is left alone"
	elif [ -e "$1" ] && [ "$(cat "$1")" = "$mark"$'\n'"$2" ]; then
		echo "$1: kept"
	elif [ -n "$dry" ]; then
		echo "would write $1"
	elif mkdir -p "$(dirname "$1")" && printf '%s\n%s\n' "$mark" "$2" >"$1.new" && chmod 644 "$1.new" && mv "$1.new" "$1"; then
		echo "$1: written"
	else
		complain "$1 could not be written"
	fi
}

persist() {
	put "$sysctl_file" "$(printf '%s\n' "${lines[@]}")"
	put "$limits_file" "* soft nofile $files
* hard nofile $files
root soft nofile $files
root hard nofile $files"
	cat <<-TEXT
		file descriptors: a login has $files from the next one on; systemd does not read these limits: a service wants a drop-in
		(systemctl edit UNIT) with
		    [Service]
		    LimitNOFILE=$files
	TEXT
}

undo() {
	local line key value old file
	if [ -e "$state" ]; then
		while IFS= read -r line; do
			key=${line%% = *} value=${line#* = }
			[[ $key =~ ^[a-z0-9_.-]+$ && -e $(path_of "$key") ]] || continue
			old=$(value_of "$key")
			if [ "$old" = "$value" ]; then
				echo "$key: $old, kept"
			else
				set_value "$key" "$old" "$value"
			fi
		done <"$state"
	else
		echo "nothing was changed: there is no $state"
	fi
	for file in "$sysctl_file" "$limits_file"; do
		grep -qsxF "$mark" "$file" || continue
		if [ -n "$dry" ]; then
			echo "would remove $file"
		else
			rm -f "$file"
			echo "$file: removed"
		fi
	done
	# What could not be put back must stay known.
	[ -n "$dry" ] || [ $status != 0 ] || rm -f "$state"
}

[ "$(uname)" = Linux ] || fail "this is for Linux"
lines=()
case $action in
undo) undo ;;
*)
	apply
	[ "$action" = apply ] || persist
	[ "$action" = persist ] || echo "file descriptors: for what this shell starts: ulimit -n $files; for every login: tune-system.sh persist"
	;;
esac
exit $status
