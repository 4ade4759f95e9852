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

# need PACKAGE WHY: a Debian package without which it cannot go on; installed where we may.
need() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "Installing $1 with apt-get: $2"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$1"; } >/dev/null 2>&1 ||
            die "apt-get could not install $1." "Next: install it by hand, then run this again."
    else
        die "$1 is missing: $2" "Next: sudo apt-get install $1, then run this again."
    fi
}

# Debian keeps the part of venv that installs pip in a package of its own.
ensure_ensurepip() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null && return
    need "$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" \
        "this Python cannot make virtual environments without it."
}

# The embedded engine's wheel leaves out OpenMP's library, which a machine without a compiler may not have.
ensure_libgomp() {
    "$1" -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null ||
        need libgomp1 "the embedded engine cannot load without it."
}

# What an install was made of: where, which extras, and what pyproject.toml and the tested versions said.
stamp() {
    printf '%s [%s] ' "$1" "$2" && cat "$1/pyproject.toml" "$1/constraints.txt" "$1/requirements.lock" | cksum
}

# may_write ROOT FOLDER: the virtual environment can be made in FOLDER, of which nothing usable is there.
may_write() {
    [ -w "$1" ] && { [ ! -e "$2" ] || [ -w "$2" ]; } && return
    die "No virtual environment can be made in $2." \
        "Why: $(id -un 2>/dev/null || id -u) may not write there, and cannot use what is there." \
        "Next: run this as the user who owns $1, or from a copy of it in a folder of your own."
}

# ensure_venv ROOT FOLDER EXTRAS [CONSTRAINTS]: FOLDER has the project at ROOT installed with EXTRAS, editable.
# CONSTRAINTS that end in .lock are all that is installed beside it, each file by its hash.
ensure_venv() {
    root=$1 folder=$2 extras=$3 constraints=${4:-}
    have=$(cat "$folder/.installed" 2>/dev/null || true)
    for enough in "$extras" ${extras:-vllm}; do # with vLLM there is nothing missing for those who need less
        [ "$have" = "$(stamp "$root" "$enough")" ] && "$folder/bin/python" -c '' 2>/dev/null && return
    done
    if ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
        may_write "$root" "$folder"
        python=$(find_python) || exit 1
        ensure_ensurepip "$python"
        say "Making a virtual environment in $folder with $("$python" --version)"
        rm -rf "$folder"
        "$python" -m venv "$folder" || die "The virtual environment could not be made; Python's own words are above." \
            "Next: check that there is room on the disk, then run this again."
    fi
    say "Installing autoglm-serve${extras:+ with $extras}; this is done once"
    rm -f "$folder/.installed"
    quiet=yes
    [ "$extras" = vllm ] && quiet= # several GB: there the progress is worth seeing
    alone=
    case $constraints in
    *.lock) # every file by its hash, and nothing that the lock does not name
        "$folder/bin/python" -m pip install ${quiet:+--quiet} --disable-pip-version-check \
            --require-hashes --requirement "$constraints" ||
            die "pip could not install what $constraints names, by its hashes; its own words are above." \
                "Next: check the network or the mirror. \`pip install -e $root\` installs what fits instead."
        constraints='' alone=yes
        ;;
    esac
    "$folder/bin/python" -m pip install ${quiet:+--quiet} --disable-pip-version-check ${alone:+--no-deps} \
        ${constraints:+--constraint "$constraints"} --editable "$root${extras:+[$extras]}" ||
        die "pip could not install it; its own words are above." \
            "Next: check the network, or set PIP_INDEX_URL to a mirror that you can reach, and run this again."
    [ "$extras" = vllm ] || ensure_libgomp "$folder/bin/python" # vLLM brings its own
    stamp "$root" "$extras" >"$folder/.installed"
}
