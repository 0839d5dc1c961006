# Shared by the scripts in this folder: what has to be installed, and how. Sourced, never run.
# shellcheck shell=bash

# What building needs.
# shellcheck disable=SC2034
build_packages=(libpq-dev libhiredis-dev libgmime-3.0-dev pkg-config)
# What `postrider dev --sandbox` and the tests start.
# shellcheck disable=SC2034
server_packages=(redis-server postgresql-15 dovecot-core dovecot-pop3d postfix openssl ca-certificates procps util-linux)

say() { printf '\033[1m▸ %s\033[0m\n' "$*" >&2; }

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Runs a command as root.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null 2>&1; then
    sudo "$@"
  else
    die "this needs root: run it as root, or install sudo"
  fi
}

# Installs the named Debian packages that are missing. Their services are neither started nor enabled: everything here
# starts private servers of its own, and a mail or database server that was not there before must not appear.
install_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null 2>&1 || die "please install: ${missing[*]} (apt-get was not found)"
  say "Installing ${missing[*]}"
  local policy=/usr/sbin/policy-rc.d made=no
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    made=yes
  fi
  local result=0
  as_root apt-get update -q >&2 || result=$?
  if [ "$result" = 0 ]; then
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >&2 ||
      result=$?
  fi
  [ "$made" = no ] || as_root rm -f "$policy"
  [ "$result" = 0 ] || die "apt-get failed; see above"
}

# Finds Swift 6.2 or newer.
require_swift() {
  command -v swift >/dev/null 2>&1 || die "Swift was not found; install Swift 6.2 or newer: https://www.swift.org/install/linux/"
  local version
  version=$(swift --version 2>/dev/null | sed -n 's/.*Swift version \([0-9]*\)\.\([0-9]*\).*/\1 \2/p' | head -n 1)
  local major=${version% *} minor=${version#* }
  if [ "${major:-0}" -lt 6 ] || { [ "$major" = 6 ] && [ "$minor" -lt 2 ]; }; then
    die "Swift 6.2 or newer is needed, this is ${major:-unknown}.${minor:-}"
  fi
}
