#!/bin/sh
# Sets up and serves: the one command. Works from any folder; flags go to `autoglm serve`.
#
#   sh run_autoglm_server.sh                                       the bundled demo model, on any machine
#   sh run_autoglm_server.sh --model zai-org/AutoGLM-Phone-9B      the real one, on an NVIDIA GPU
#
# The first run makes .venv beside this file and installs into it. With an NVIDIA GPU that includes vLLM
# (several GB); without one, or with --engine llama_cpp or external, only the embedded engine (200 MB on disk).
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
. "$root/scripts/venv.sh"

[ "$(uname -s)" = Linux ] || die "autoglm-serve runs on Linux, and this is $(uname -s)." \
    "Next: on Windows run this in WSL2; on macOS in a Linux container or virtual machine."

has_gpu() {
    nvidia-smi -L 2>/dev/null | grep -q '^GPU' || ls /proc/driver/nvidia/gpus/* >/dev/null 2>&1
}

# The engine that was asked for, if one was.
asked_engine() {
    engine=${AUTOGLM_ENGINE:-auto}
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        case $1 in
        --engine) engine=${2:-auto} ;;
        --engine=*) engine=${1#--engine=} ;;
        esac
        shift
    done
    printf '%s' "$engine"
}

case $(asked_engine "$@") in
auto | vllm) if has_gpu; then extras=vllm; else extras=; fi ;;
*) extras= ;;
esac

if [ -n "$extras" ]; then
    ensure_venv "$root" "$root/.venv" "$extras" # vLLM pins what it needs; our tested versions would fight with it
else
    ensure_venv "$root" "$root/.venv" "" "$root/requirements.lock"
fi
exec "$root/.venv/bin/autoglm" serve "$@"
