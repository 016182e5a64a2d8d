# shellcheck shell=bash
# Sourced by the scripts beside it: .venv, the virtual environment of this checkout. Runs with the bash 3.2 of macOS too.

set -euo pipefail

# The tests start some thousand processes, which without it would each compile the whole package anew.
unset PYTHONDONTWRITEBYTECODE

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv

say() { printf '==> %s\n' "$*"; }
fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

is_debian_root() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

# The reports of apt and pip are pages long: the names of the packages, and a dot for a download, show that it moves.
show_packages() {
    local word rest
    while read -r word rest; do
        case "$word $rest" in
            Collecting* | Unpacking*) printf '%s ' "${rest%%[!A-Za-z0-9._-]*}" ;;
            Get:*) printf '.' ;;
            "Installing collected"*) printf '... all here, going into .venv' ;;
        esac
    done
    printf '\n'
}

apt_install() {
    say "installing with apt: $*"
    # The lists of a fresh machine are empty or old; where they cannot be renewed they may still do.
    apt-get update -qq || say "apt-get update failed, going on"
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" </dev/null | show_packages
}

pip_install() { "$venv/bin/python" -m pip install --disable-pip-version-check "$@" | show_packages; }

# A Python that is new enough: the one that $PYTHON names, or else the first that answers (a name alone may be a stub).
find_python() {
    local name names=(python3.13 python3.12 python3.11 python3.14 python3)
    [ -z "${PYTHON:-}" ] || names=("$PYTHON")
    for name in "${names[@]}"; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$name"
            return
        fi
    done
    fail "no Python 3.11 or newer among: ${names[*]}. Install one, or name it: PYTHON=/path/to/python3 $0"
}

make_venv() {
    local python package
    python=$(find_python)
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        # Debian keeps what a virtual environment needs in a package of its own.
        package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        is_debian_root || fail "$python cannot make virtual environments. On Debian: sudo apt-get install $package"
        apt_install "$package"
    fi
    say "making .venv with $python"
    rm -rf "$venv"
    "$python" -m venv "$venv"
    printf '%s\n' "$root" >"$venv/.root"
}

# ensure_venv EXTRAS [LOCK]: .venv is there, works, and holds this checkout with these extras as pyproject.toml now has
# them. With CI=true and a LOCK, a file of requirements/, it holds exactly what that says.
ensure_venv() {
    local extras=$1 lock= wanted stamp
    if [ "${CI:-}" = true ] && [ -n "${2:-}" ]; then
        lock=$root/requirements/$2
        extras=locked-$2
    fi
    # A checkout that was moved has an environment whose scripts point to the old place.
    if [ "$(cat "$venv/.root" 2>/dev/null)" != "$root" ] || ! "$venv/bin/python" -c '' 2>/dev/null; then
        make_venv
    fi
    wanted=$(cat "$root/pyproject.toml" ${lock:+"$lock"} | cksum)
    for stamp in "$venv"/.installed-"$extras"*; do # what was installed with more extras will do as well
        [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || return 0
    done
    if [ -n "$lock" ]; then
        say "installing the versions of requirements/$2 into .venv (the first time takes a minute or two)"
        pip_install --require-hashes --requirement "$lock"
        pip_install --no-deps --no-build-isolation --editable "$root"
    else
        say "installing ssepool[$extras] into .venv (the first time takes a minute or two)"
        (cd "$root" && pip_install --editable ".[$extras]")
    fi
    printf '%s\n' "$wanted" >"$venv/.installed-$extras"
}
