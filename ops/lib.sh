# Shared by the scripts in this folder: what has to be installed, and how. Sourced, never run.
# shellcheck shell=bash

# What building needs: our own C libraries, and what swift.org's toolchain for Debian 12 uses without bringing it along
# (of the packages listed there, those that the debugger or a static standard library need are left out).
# shellcheck disable=SC2034
build_packages=(
  libpq-dev libhiredis-dev libgmime-3.0-dev libgsasl-dev pkg-config
  # Fetching dependencies.
  git ca-certificates
  # The C and C++ headers, start files and linker that every `swift build` takes from the system; zlib for NIO.
  binutils libc6-dev libgcc-12-dev libstdc++-12-dev zlib1g-dev
  # Libraries that the toolchain's programs and Foundation load, and the time zones Foundation reads.
  libcurl4 libncurses6 libsqlite3-0 libxml2 tzdata
)
# What `postrider dev --sandbox` and the tests start.
# shellcheck disable=SC2034
server_packages=(redis-server postgresql-15 dovecot-core dovecot-pop3d postfix openssl ca-certificates procps util-linux)
# What only the tests start: Prometheus, a Kerberos realm with a mail server that knows it, and a pooler.
# shellcheck disable=SC2034
test_packages=(prometheus dovecot-gssapi krb5-kdc krb5-admin-server pgbouncer)
# Mail servers that only the tests start, beside Postfix. Debian allows one mail server on a machine, so these are unpacked
# into a folder and started from there; what they load is installed.
# shellcheck disable=SC2034
unpacked_packages=(exim4-daemon-light opensmtpd)
# shellcheck disable=SC2034
unpacked_libraries=(
  libdb5.3 libgnutls-dane0 libgnutls30 libidn12 libidn2-0 libnsl2 libpcre2-8-0 libevent-2.1-7 libpam0g libssl3
)
# POP3 servers that only the tests start. Installed, they would conflict with each other, ask questions and start by
# themselves, so they are fetched and unpacked into a folder; the libraries that they need stand beside them.
# shellcheck disable=SC2034
mail_server_packages=(
  popa3d
  mailutils-pop3d mailutils-common libmailutils9 libmu-dbm9 libkyotocabinet16v5 liblzo2-2 libgdbm6 libmariadb3 libnsl2
  libtirpc3 libldap-2.5-0 libgssglue1 libntlm0 libwrap0
  courier-pop courier-base courier-authdaemon courier-authlib courier-authlib-userdb libcourier-unicode4 libltdl7 libidn12
  libpcre3
  cyrus-common cyrus-pop3d sasl2-bin libsasl2-2 libsasl2-modules libsasl2-modules-db libical3 libxapian30 libicu72
  libjansson4 libzephyr4 libclamav12
)

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

# Installs the named Debian packages that are missing. The servers among them are neither started nor, where systemd is
# there, left enabled: everything here starts private servers of its own, and a mail or database server that was not
# there before must not appear. Servers that were there before stay as they are, and nothing is ever removed for it.
install_packages() {
  local missing=() package
  for package in "$@"; do
    is_installed "$package" || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null 2>&1 || die "please install: ${missing[*]} (apt-get was not found)"
  say "Installing ${missing[*]}"
  # One process as root for all of it: cleaning up must not need a password, or a terminal that may be gone.
  # shellcheck disable=SC2016
  as_root bash -c "$(declare -f is_installed installed_packages install_as_root); install_as_root \"\$@\"" bash \
    "${missing[@]}" >&2 || die "apt-get failed; see above"
}

# Unpacks the named Debian packages into folders of their names below a folder; those that are there stay. Nothing of
# them is installed or run.
unpack_packages() {
  local folder=$1 package work
  shift
  for package in "$@"; do
    [ ! -d "$folder/$package" ] || continue
    say "Unpacking $package"
    mkdir -p "$folder"
    work=$(mktemp -d)
    fetch_package "$package" "$work" >&2 || die "apt-get could not fetch $package; see above"
    rm -rf "$folder/$package.new"
    dpkg -x "$work/$package"_*.deb "$folder/$package.new"
    rm -rf "$work"
    # At once: half of a package must not look like one.
    mv "$folder/$package.new" "$folder/$package"
  done
}

# Fetches a package file into a folder, after an update of the lists when it fails without.
fetch_package() {
  command -v apt-get >/dev/null 2>&1 || die "$1 is needed by the tests, and apt-get was not found; set \
POSTRIDER_MAIL_SERVERS to a folder with the unpacked packages ${unpacked_packages[*]}"
  (cd "$2" && apt-get -q -o APT::Sandbox::User=root download "$1") && return
  as_root apt-get update -q
  (cd "$2" && apt-get -q -o APT::Sandbox::User=root download "$1")
}

# Fetches the named Debian packages into a folder, unpacked as they would lie below /, and installs nothing. What is
# there already from an earlier call with the same names stays.
fetch_packages() {
  local folder=$1 archive
  shift
  [ "$(cat "$folder/.packages" 2>/dev/null)" != "$*" ] || return 0
  command -v apt-get >/dev/null 2>&1 || die "these are fetched with apt-get, which was not found: $*"
  say "Fetching $*"
  rm -rf "$folder"
  mkdir -p "$folder/.archives"
  (
    cd "$folder/.archives"
    apt-get download -q "$@" >&2 || { as_root apt-get update -q >&2 && apt-get download -q "$@" >&2; }
  ) || die "apt-get download failed; see above"
  for archive in "$folder"/.archives/*.deb; do dpkg -x "$archive" "$folder" || die "$archive cannot be unpacked"; done
  # As on a system where both are one.
  if [ -d "$folder/lib" ]; then
    cp -a "$folder/lib/." "$folder/usr/lib/"
    rm -rf "${folder:?}/lib"
  fi
  rm -rf "$folder/.archives"
  printf '%s' "$*" >"$folder/.packages"
}

# Installs the pinned packages of a requirements file from PyPI into an environment of their own, once; sets `tools` to its
# folder, in which `complete` stands when everything is there.
python_tools() {
  local requirements=$1
  tools=${XDG_CACHE_HOME:-$HOME/.cache}/postrider-checks/$(sha256sum "$requirements" | cut -c1-16)
  [ ! -e "$tools/complete" ] || return 0
  say "Getting the checkers of $requirements (once)"
  rm -rf "$tools"
  if mkdir -p "$tools" && python3 -m venv "$tools" >&2 &&
    timeout 600 "$tools/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --requirement "$requirements" >&2; then
    touch "$tools/complete"
  else
    say "The checkers of $requirements could not be installed"
  fi
}

is_installed() { dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }

# The names of all installed packages, sorted.
installed_packages() {
  dpkg-query -W -f '${db:Status-Status} ${binary:Package}\n' | sed -n 's/^installed //p' | LC_ALL=C sort
}

# Runs as root, in a process of its own: its traps are nobody else's. Its variables are global, as the last trap runs
# after the function has returned.
install_as_root() {
  policy=/usr/sbin/policy-rc.d mark="made by Postrider, to be removed" ours=no
  before=$(installed_packages)
  # shellcheck disable=SC2317 # called by the trap
  clean_up() {
    # The first Ctrl-C is enough.
    trap '' INT TERM HUP
    local unit
    # Also when apt-get was stopped half-way: whatever it had brought by then.
    if command -v systemctl >/dev/null 2>&1; then
      LC_ALL=C comm -13 <(printf '%s\n' "$before") <(installed_packages) |
        grep -E '^(redis-server|postgresql|dovecot|postfix|prometheus|krb5-|pgbouncer)' | xargs -r dpkg -L |
        sed -nE 's|^(/usr)?/lib/systemd/system/([^/@]+\.(service\|socket\|timer\|path))$|\2|p' |
        while read -r unit; do systemctl disable "$unit" >/dev/null 2>&1 </dev/null || true; done
    fi
    [ "$ours" = no ] || rm -f "$policy"
  }
  trap clean_up EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
  # One installation at a time: the first to end would remove the others' policy.
  exec 9</var/lib/dpkg && flock 9
  # A marked one was left by a run that was killed.
  if [ ! -e "$policy" ] || grep -qF "$mark" "$policy"; then
    ours=yes
    printf '#!/bin/sh\n# %s\nexit 101\n' "$mark" >"$policy" && chmod 755 "$policy" || return
  fi
  apt-get update -q 9<&- || return
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends --no-remove "$@" 9<&-
}

# Finds some Swift: before anything is installed.
find_swift() {
  command -v swift >/dev/null 2>&1 || die "Swift was not found; install Swift 6.2 or newer: https://www.swift.org/install/linux/"
}

# Checks that it is Swift 6.2 or newer: after the libraries that it loads are installed.
require_swift() {
  find_swift
  local output version
  output=$(swift --version 2>&1) || die "swift --version failed: $output"
  version=$(printf '%s\n' "$output" | sed -n 's/.*Swift version \([0-9]*\)\.\([0-9]*\).*/\1 \2/p' | head -n 1)
  local major=${version% *} minor=${version#* }
  if [ "${major:-0}" -lt 6 ] || { [ "$major" = 6 ] && [ "$minor" -lt 2 ]; }; then
    die "Swift 6.2 or newer is needed, this is ${major:-unknown}.${minor:-}"
  fi
}

# Prints the test processes below a process and the `postrider` processes they started. Their servers end with them.
family() {
  ps -e -o pid=,ppid=,comm= | awk -v root="$1" '
    { parent[$1] = $2; name[$1] = $3 }
    END {
      for (one in parent)
        for (above = one; above in parent; above = parent[above])
          if (above == root) { if (name[one] ~ /^postrider/) print one; break }
    }'
}
