#!/bin/sh
# The API with curl.
#
#   sh run_autoglm_server.sh --served-model-name autoglm-phone-9b
#   sh examples/curl.sh
set -eu
base=${OPENAI_BASE_URL:-http://127.0.0.1:8000/v1}

echo "# the models"
curl -sS --fail-with-body "$base/models"

echo; echo "# a question"
curl -sS --fail-with-body "$base/chat/completions" -H 'Content-Type: application/json' -d '{
  "model": "autoglm-phone-9b",
  "messages": [{"role": "user", "content": "你是谁？"}]
}'

echo; echo "# the same as a stream"
curl -sS --fail-with-body --no-buffer "$base/chat/completions" -H 'Content-Type: application/json' -d '{
  "model": "autoglm-phone-9b",
  "messages": [{"role": "user", "content": "你是谁？"}],
  "stream": true
}'

echo "# is a replica ready to serve?"
curl -sS --fail-with-body "${base%/v1}/ready"
echo
