# shellcheck shell=sh
# Sourced by run_autoglm_server.sh and run_tests.sh: a Python, a virtual environment, an install that is
# repeated only when what it installs has changed. POSIX sh; assumes nothing but a Python.

say() { printf '%s\n' "$@" >&2; }

die() { say "$@"; exit 1; }

# The Python to build with: $PYTHON, or the newest there is that is new enough.
find_python() {
    for candidate in ${PYTHON:-python3.14 python3.13 python3.12 python3.11 python3 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    die "Python 3.11 or newer is needed; ${PYTHON:-what is on the PATH} is not." \
        "Next: apt-get install python3 python3-venv (Debian 12, Ubuntu 24.04), or set PYTHON=/path/to/python3."
}

# Debian keeps the part of venv that installs pip in a package of its own.
ensure_ensurepip() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null && return
    package=$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "Installing $package with apt-get: this Python cannot make virtual environments without it."
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$package"; } >/dev/null ||
            die "apt-get could not install $package."
    else
        die "This Python cannot make virtual environments: $package is missing." \
            "Next: sudo apt-get install $package, then run this again."
    fi
}

# ensure_venv ROOT FOLDER EXTRAS [CONSTRAINTS]: FOLDER has the project at ROOT installed with EXTRAS, editable.
ensure_venv() {
    root=$1 folder=$2 extras=$3 constraints=${4:-}
    wanted=$(printf '%s ' "$root" "$extras" && cat "$root/pyproject.toml" ${constraints:+"$constraints"} | cksum)
    if [ -f "$folder/.installed" ] && [ "$(cat "$folder/.installed")" = "$wanted" ] &&
        "$folder/bin/python" -c '' 2>/dev/null; then
        return
    fi
    if ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
        python=$(find_python) || exit 1
        ensure_ensurepip "$python"
        say "Making a virtual environment in $folder with $("$python" --version)"
        rm -rf "$folder"
        "$python" -m venv "$folder" || die "The virtual environment could not be made."
    fi
    say "Installing autoglm-serve${extras:+ with $extras}; this is done once"
    rm -f "$folder/.installed"
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check \
        ${constraints:+--constraint "$constraints"} --editable "$root${extras:+[$extras]}" ||
        die "pip could not install it; its own words are above." \
            "Next: check the network, or set PIP_INDEX_URL to a mirror that you can reach, and run this again."
    printf '%s' "$wanted" >"$folder/.installed"
}
