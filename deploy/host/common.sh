# Shared by install, setup and launch, which set `source` to the checkout before they read it.
# shellcheck shell=sh disable=SC2154

# setup and the Makefile use the same version.
uv_version=0.13.8
dry_run=no
changes=0

say() { printf '%s\n' "$*"; }
fail() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 2
}

need_value() { [ "$2" -ge 2 ] || fail "$1 needs a value"; }

check_port() { # NUMBER
  case $1 in
    '' | *[!0-9]* | ??????*) fail "port '$1' is not a number from 1 to 65535" ;;
  esac
  if [ "$1" -lt 1 ] || [ "$1" -gt 65535 ]; then fail "port $1 is not a number from 1 to 65535"; fi
}

# Sets `python` to the first Python 3.11 to 3.13: the given one, or one in PATH.
find_python() {
  for candidate in ${python:-python3.13 python3.12 python3.11 python3}; do
    path=$(command -v "$candidate" || true)
    [ -n "$path" ] || continue
    if "$path" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2> /dev/null; then
      python=$path
      return
    fi
  done
  found=$(python3 --version 2> /dev/null || echo "no python3 at all")
  fail "no Python 3.11 to 3.13 (${python:+$python; }found $found): apt-get install python3 python3-venv, or give --python"
}

free_mb() { # PATH: prints the free space of the disk that would hold it
  place=$1
  while [ ! -d "$place" ]; do place=$(dirname "$place"); done
  df -Pm "$place" | awk 'NR == 2 {print $4}'
}

is_busy() { # PORT: whether something listens there
  "$python" -c 'import socket, sys
families = {socket.AF_INET: "0.0.0.0"}
if socket.has_dualstack_ipv6():
    families[socket.AF_INET6] = "::"
for family, address in families.items():
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, int(sys.argv[1])))
    except OSError as error:
        if error.errno == 98:
            sys.exit(1)
    listener.close()' "$1" && return 1
  return 0
}

hold_lock() { # FOLDER: until the end of this script and of the programs that it has started
  [ -d "$1" ] && [ "$dry_run" = no ] || return 0
  # Whoever can open a file can lock it, so only this user can open this one.
  (umask 077 && : >> "$1/.lock")
  exec 9>> "$1/.lock"
  flock -n 9 || fail "another run of this script, or a program that an interrupted run has started, still works in $1: wait for its end (fuser -v $1/.lock), then run ${0##*/} again"
}

after_change() { :; } # install replaces it

changed() { # WHAT ...: counts a change and says it, or that it would be made
  changes=$((changes + 1))
  if [ "$dry_run" = yes ]; then
    say "would $*"
  else
    say "$*"
    after_change
  fi
}

run() { # COMMAND ...: unless it is a dry run
  [ "$dry_run" = yes ] || "$@"
}

make_uv() { # FOLDER: makes an environment that holds uv, unless it is there
  case $("$1/bin/uv" --version 2> /dev/null || true) in
    "uv $uv_version" | "uv $uv_version "*) return ;;
  esac
  "$python" -m venv --clear "$1" || fail "$python cannot make an environment: apt-get install python3-venv"
  "$1/bin/python" -m pip install --quiet --no-cache-dir --disable-pip-version-check "uv==$uv_version" ||
    fail "uv $uv_version cannot be installed: is the package index reachable? (PIP_INDEX_URL, HTTPS_PROXY)"
}

hash_sources() { # prints a hash of standard input and of the program in this checkout
  (
    cd "$source" || exit
    cat
    find rlcar cluster serve k8s pyproject.toml uv.lock -type f ! -name '*.pyc' 2> /dev/null |
      LC_ALL=C sort | while IFS= read -r name; do sha256sum "$name"; done
  ) | sha256sum | cut -c1-12
}
