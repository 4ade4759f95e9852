# shellcheck shell=sh
# Sourced by run_tests.sh --clients: installs the clients that tests/clients tries, each where its kind lives.

# ensure_clients DIRECTORY: Python's in two environments, for two majors of OpenAI's; Node's beside them.
ensure_clients() {
    clients=$1
    mkdir -p "$clients/js"
    if [ ! -x "$clients/new/bin/python" ]; then
        "$bin/python" -m venv "$clients/new"
        "$clients/new/bin/pip" install --quiet 'openai>=2,<3' 'langchain-openai>=1' 'litellm>=1.80' \
            'anthropic>=1' 'llama-index-llms-openai-like>=0.5' 'instructor>=1.12'
    fi
    if [ ! -x "$clients/old/bin/python" ]; then
        "$bin/python" -m venv "$clients/old"
        "$clients/old/bin/pip" install --quiet 'openai>=1.66,<2'
    fi
    cp "$root/tests/clients/js/package.json" "$root/tests/clients/js/drive.mjs" "$clients/js/"
    command -v npm >/dev/null || die "The clients of Node need npm." "Install Node 20 or newer."
    (cd "$clients/js" && npm install --no-audit --no-fund --loglevel error)
}
