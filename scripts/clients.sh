# shellcheck shell=sh
# Sourced by run_tests.sh --clients: installs the clients that tests/clients tries, each where its kind lives.

# ensure_clients DIRECTORY: Python's in an environment for each major of OpenAI's, the load tools in two more, as each
# wants other versions of what they share; Node's beside them.
ensure_clients() {
    clients=$1
    mkdir -p "$clients/js"
    ensure_client new 'openai>=2,<3' 'langchain-openai>=1' 'litellm>=1.80' 'anthropic>=1' \
        'llama-index-llms-openai-like>=0.5' 'instructor>=1.12' 'ollama>=0.6'
    ensure_client old 'openai>=1.66,<2'
    ensure_client aiperf 'aiperf>=0.10'
    ensure_client guidellm 'guidellm>=0.6'
    cp "$root/tests/clients/js/package.json" "$root/tests/clients/js/drive.mjs" "$clients/js/"
    command -v npm >/dev/null || die "The clients of Node need npm." "Install Node 20 or newer."
    (cd "$clients/js" && npm install --no-audit --no-fund --loglevel error) ||
        die "The clients of Node could not be installed; npm's own words are above."
}

# ensure_client NAME REQUIREMENT...: an environment with these; again when they have changed.
ensure_client() {
    folder=$clients/$1
    shift
    [ "$(cat "$folder/.installed" 2>/dev/null)" = "$*" ] && return
    say "Installing into $folder: $*"
    rm -rf "$folder"
    "$bin/python" -m venv "$folder" && "$folder/bin/pip" install --quiet --disable-pip-version-check "$@" ||
        die "$folder could not be made; pip's own words are above."
    printf '%s' "$*" >"$folder/.installed"
}
