"""The OpenAI SDK: a question, the same as a stream with the thinking apart, and a picture.

Start a service under the name that this asks for, then run it:

    sh run_autoglm_server.sh --served-model-name autoglm-phone-9b
    python examples/openai_sdk.py [PICTURE.png]
"""

import base64
import os
import sys
from pathlib import Path

from openai import OpenAI

MODEL = "autoglm-phone-9b"
PICTURE = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("screen.png"))

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key="EMPTY",
)

# Text
reply = client.chat.completions.create(
    model=MODEL,
    messages=[{"role": "user", "content": "Who are you?"}],
)
print("text:", reply.choices[0].message.content)

# Stream; with return_reasoning the thinking comes apart from the answer
stream = client.chat.completions.create(
    model=MODEL,
    messages=[{"role": "user", "content": "你是谁？"}],
    stream=True,
    stream_options={"include_usage": True},
    extra_body={"return_reasoning": True},
)
print("stream: ", end="")
for chunk in stream:
    for choice in chunk.choices:
        thinking = getattr(choice.delta, "reasoning_content", None)
        print(f"({thinking})" if thinking else choice.delta.content or "", end="", flush=True)
    if chunk.usage:
        print(f"\ntokens: {chunk.usage.prompt_tokens} in, {chunk.usage.completion_tokens} out")

# Picture
data_url = "data:image/png;base64," + base64.b64encode(PICTURE.read_bytes()).decode()
reply = client.chat.completions.create(
    model=MODEL,
    temperature=0,
    messages=[
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": data_url}},
                {"type": "text", "text": "现在几点？"},
            ],
        }
    ],
)
print("picture:", reply.choices[0].message.content)
