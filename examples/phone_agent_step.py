"""One step of a phone agent: a screenshot and a task in, one action out.

The request is the one that Open-AutoGLM sends: the system prompt is a plain string, the picture stands
before the text, one picture, greedy, streamed. Content comes exactly as the model wrote it, so the agent
reads <think> and <answer> itself.

    sh run_autoglm_server.sh --served-model-name autoglm-phone-9b
    python examples/phone_agent_step.py [SCREENSHOT.png] [TASK]
"""

import base64
import json
import os
import re
import sys
from pathlib import Path

from openai import OpenAI

SCREENSHOT = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("screen.png"))
TASK = sys.argv[2] if len(sys.argv) > 2 else "点击微信"
SYSTEM_PROMPT = (
    "你是一个手机操作助手。先在 <think> 里想，再在 <answer> 里给出一个动作："
    'do(action="Tap", element=[x,y])、do(action="Swipe", start=[x,y], end=[x,y])、'
    'do(action="Type", text="…")、do(action="Back")、do(action="Home") 或 finish(message="…")。'
)

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key="EMPTY",
)


def next_action(screenshot: bytes, task: str) -> str:
    """What the model would do now: the text of one do(...) or finish(...)."""
    picture = "data:image/png;base64," + base64.b64encode(screenshot).decode()
    screen_info = json.dumps({"current_app": "System Home"}, ensure_ascii=False)
    stream = client.chat.completions.create(
        model="autoglm-phone-9b",
        messages=[
            {"role": "system", "content": SYSTEM_PROMPT},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": picture}},
                    {"type": "text", "text": f"{task}\n\n{screen_info}"},
                ],
            },
        ],
        max_tokens=3000,
        temperature=0.0,
        top_p=0.85,
        frequency_penalty=0.2,
        stream=True,
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    found = re.search(r"(?:do|finish)\(.*\)", text, re.DOTALL)
    if found is None:
        raise SystemExit(f"no action in the answer: {text!r}")
    return found.group()


if __name__ == "__main__":
    print(next_action(SCREENSHOT.read_bytes(), TASK))
