"""LangChain's ChatOpenAI with the two thinking switches, streamed.

Start a service under the name that this asks for, then run it:

    sh run_autoglm_server.sh --served-model-name autoglm-phone-9b
    python examples/langchain_chat.py
"""

import os

from langchain_openai import ChatOpenAI

chat_model = ChatOpenAI(
    model="autoglm-phone-9b",
    temperature=0.5,
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key="EMPTY",
    extra_body={
        "enable_thinking": True,
        "return_reasoning": True,
    },
    streaming=True,
)

for chunk in chat_model.stream("你是谁？"):
    print(chunk.content, end="", flush=True)
print()
