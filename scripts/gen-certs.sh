#!/usr/bin/env bash
# Makes an authority and a hub's certificate for tls.cert_file and tls.key_file. See --help.
set -euo pipefail

usage() {
	cat <<'TEXT'
usage: gen-certs.sh [--out DIR] [--days N] [--force] [--force-ca] [NAME|ADDRESS ...]

Makes what the keys tls.cert_file and tls.key_file of quic-server need:

  DIR/ca.crt, DIR/ca.key    an authority; agents that join trust it from then on, so keep its key safe
  DIR/hub.crt               tls.cert_file: the hub's certificate, then the authority's
  DIR/hub.key               tls.key_file

The hub's certificate is valid for hub.quicflow, which agents look for, for localhost, 127.0.0.1 and ::1, and for the
names and addresses given. What exists is kept; an authority that exists issues what is missing.

  --out DIR    where to (default: certs)
  --days N     how long the hub's certificate is valid (default: 825); an authority is for 3650 days or for N, if that is more
  --force      replace the hub's certificate and key by new ones of the same authority
  --force-ca   replace the authority too: agents that trust the old one must join again
TEXT
}

fail() {
	echo "gen-certs.sh: $*" >&2
	exit 1
}

out=certs days=825 force='' force_ca=''
names=(DNS:hub.quicflow DNS:localhost IP:127.0.0.1 IP:::1)

# add_name takes a host name, a name with a leading "*.", or an address.
add_name() {
	local name
	if [[ $1 =~ ^[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+$ || $1 =~ ^[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*$ ]]; then
		name=IP:$1
	elif [[ $1 =~ ^(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$ ]]; then
		name=DNS:$1
	else
		fail "\"$1\" is neither a host name nor an address"
	fi
	[[ " ${names[*]} " == *" $name "* ]] || names+=("$name")
}

while [ $# -gt 0 ]; do
	case $1 in
	-h | --help) usage && exit 0 ;;
	--out | --days) [ $# -gt 1 ] || fail "$1 wants a value" ;;&
	--out) out=$2 && shift ;;
	--days) days=$2 && shift ;;
	--force) force=1 ;;
	--force-ca) force=1 force_ca=1 ;;
	-*) fail "unknown option $1; see --help" ;;
	*) add_name "$1" ;;
	esac
	shift
done
[[ $days =~ ^[1-9][0-9]{0,4}$ ]] || fail "--days: \"$days\" is no number of days"
command -v openssl >/dev/null || fail "openssl is not installed"

umask 077
mkdir -p "$out"
new=$(mktemp -d "$out/.new.XXXXXX") # beside the files, so that a move replaces them at once
trap 'rm -rf "$new"' EXIT

# run keeps quiet unless openssl fails.
run() {
	openssl "$@" >"$new/said" 2>&1 || { cat "$new/said" >&2 && fail "openssl $1 failed"; }
}

make_authority() {
	cat >"$new/ca.cnf" <<-TEXT
		[req]
		prompt = no
		distinguished_name = name
		x509_extensions = authority
		[name]
		CN = QuicFlow hub CA $(openssl rand -hex 4)
		[authority]
		basicConstraints = critical, CA:TRUE, pathlen:0
		keyUsage = critical, keyCertSign, cRLSign
		subjectKeyIdentifier = hash
	TEXT
	run req -x509 -config "$new/ca.cnf" -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 \
		-days "$((days > 3650 ? days : 3650))" -keyout "$new/ca.key" -out "$new/ca.crt"
	chmod 644 "$new/ca.crt"
	# The key first: without its certificate it is no authority yet, and the next run makes both anew.
	rm -f "$out/ca.crt"
	mv "$new/ca.key" "$out/ca.key"
	mv "$new/ca.crt" "$out/ca.crt"
	echo "made $out/ca.crt and $out/ca.key"
}

make_hub() {
	local san
	san=$(IFS=,; echo "${names[*]}")
	cat >"$new/hub.cnf" <<-TEXT
		[req]
		prompt = no
		distinguished_name = name
		[name]
		CN = hub.quicflow
		[hub]
		basicConstraints = critical, CA:FALSE
		keyUsage = critical, digitalSignature
		extendedKeyUsage = serverAuth
		subjectKeyIdentifier = hash
		authorityKeyIdentifier = keyid
		subjectAltName = $san
	TEXT
	run req -new -config "$new/hub.cnf" -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 \
		-keyout "$new/hub.key" -out "$new/hub.csr"
	run x509 -req -in "$new/hub.csr" -CA "$out/ca.crt" -CAkey "$out/ca.key" -set_serial "0x$(openssl rand -hex 16)" -sha256 \
		-days "$days" -extfile "$new/hub.cnf" -extensions hub -out "$new/leaf.crt"
	run verify -CAfile "$out/ca.crt" -verify_hostname hub.quicflow "$new/leaf.crt"
	cat "$new/leaf.crt" "$out/ca.crt" >"$new/hub.crt"
	chmod 644 "$new/hub.crt"
	rm -f "$out/hub.crt" # a key beside no certificate is seen to be unfinished; beside another's it is not
	mv "$new/hub.key" "$out/hub.key"
	mv "$new/hub.crt" "$out/hub.crt"
	echo "made $out/hub.crt and $out/hub.key, valid for ${names[*]#*:}"
}

# check_hub fails where a certificate that is kept is not what was asked for.
check_hub() {
	local name option lacking=()
	for name in "${names[@]}"; do
		option=-checkhost
		[[ $name == DNS:* ]] || option=-checkip
		openssl x509 -in "$out/hub.crt" -noout "$option" "${name#*:}" | grep -q 'does match' || lacking+=("${name#*:}")
	done
	echo "kept $out/hub.crt and $out/hub.key"
	[ ${#lacking[@]} = 0 ] || fail "$out/hub.crt is not valid for ${lacking[*]}; --force makes another"
	openssl verify -CAfile "$out/ca.crt" "$out/hub.crt" >/dev/null 2>&1 ||
		fail "$out/hub.crt has expired or was not issued by $out/ca.crt; --force makes another"
	openssl x509 -in "$out/hub.crt" -noout -checkend $((30 * 24 * 3600)) >/dev/null ||
		echo "it expires within 30 days; --force makes another" >&2
}

if [ -e "$out/ca.crt" ] && [ ! -e "$out/ca.key" ] && [ -z "$force_ca" ]; then
	fail "$out/ca.crt is there but its key $out/ca.key is missing: restore it, or make another authority with --force-ca"
fi
if [ -n "$force_ca" ] || [ ! -e "$out/ca.crt" ]; then
	[ -n "$force" ] || [ ! -e "$out/hub.crt" ] ||
		fail "$out/hub.crt is there but its authority $out/ca.crt is missing: restore it, or make both anew with --force-ca"
	make_authority
	force=1
else
	echo "kept $out/ca.crt and $out/ca.key"
fi
if [ -n "$force" ] || [ ! -e "$out/hub.crt" ] || [ ! -e "$out/hub.key" ]; then
	make_hub
else
	check_hub
fi
echo "for quic-server: tls.cert_file: $(realpath "$out/hub.crt"), tls.key_file: $(realpath "$out/hub.key")"
