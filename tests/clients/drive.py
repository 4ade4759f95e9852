"""One thing asked of the service through one client library, unmodified; what came of it on one line of JSON.

    python drive.py CLIENT FEATURE BASE

Run by `test_clients` in the environment that has the library.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

MODEL = "demo"
PICTURE = "data:image/png;base64,{}"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
ASK = [{"role": "user", "content": "hello"}]
LOOK = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "look"},
            {"type": "image_url", "image_url": {"url": PICTURE.format(PIXEL)}},
        ],
    }
]
TAP = {
    "name": "tap",
    "description": "Tap the screen.",
    "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
}
TOOLS = [{"type": "function", "function": TAP}]
SCHEMA = {"name": "point", "schema": TAP["parameters"], "strict": True}
Result = dict[str, Any]


def openai(feature: str, base: str) -> Result:
    from openai import BadRequestError, OpenAI

    client = OpenAI(base_url=f"{base}/v1", api_key="EMPTY", max_retries=0)
    chat = client.chat.completions
    match feature:
        case "chat" | "picture":
            reply = chat.create(model=MODEL, messages=LOOK if feature == "picture" else ASK)
            return {"text": reply.choices[0].message.content, "usage": reply.usage.total_tokens}
        case "stream" | "killed":
            options = {"include_usage": True}
            chunks = list(chat.create(model=MODEL, messages=ASK, stream=True, stream_options=options))
            return {"text": "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)}
        case "tools":
            reply = chat.create(model=MODEL, messages=ASK, tools=TOOLS, tool_choice="required")
            call = reply.choices[0].message.tool_calls[0].function
            return {"call": call.name, "arguments": json.loads(call.arguments)}
        case "structured":
            form = {"type": "json_schema", "json_schema": SCHEMA}
            reply = chat.create(model=MODEL, messages=ASK, response_format=form)
            return {"value": json.loads(reply.choices[0].message.content)}
        case "responses":
            with client.responses.stream(model=MODEL, input="hello") as stream:
                text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
            return {"text": text}
        case "error":
            try:
                chat.create(model=MODEL, messages=[{"role": "user", "content": [{"type": "image_url"}]}])
            except BadRequestError as error:
                return {"code": error.code, "status": error.status_code}
    raise NotImplementedError(feature)


def langchain(feature: str, base: str) -> Result:
    from langchain_openai import ChatOpenAI
    from openai import NotFoundError

    model = ChatOpenAI(base_url=f"{base}/v1", api_key="EMPTY", model=MODEL, max_retries=0)
    match feature:
        case "chat" | "picture":
            return {"text": model.invoke(LOOK if feature == "picture" else ASK).content}
        case "stream" | "killed":
            return {"text": "".join(str(chunk.content) for chunk in model.stream(ASK))}
        case "tools":
            call = model.bind_tools(TOOLS, tool_choice="required").invoke(ASK).tool_calls[0]
            return {"call": call["name"], "arguments": call["args"]}
        case "structured":
            value = model.with_structured_output(
                {"title": "point", **SCHEMA["schema"]}, method="json_schema"
            ).invoke(ASK)
            return {"value": value}
        case "error":
            try:
                ChatOpenAI(base_url=f"{base}/v1", api_key="EMPTY", model="nobody", max_retries=0).invoke(ASK)
            except NotFoundError as error:
                return {"code": error.code, "status": error.status_code}
    raise NotImplementedError(feature)


def litellm(feature: str, base: str) -> Result:
    import litellm as library

    at = {"model": f"openai/{MODEL}", "api_base": f"{base}/v1", "api_key": "EMPTY", "num_retries": 0}
    match feature:
        case "chat" | "picture":
            reply = library.completion(messages=LOOK if feature == "picture" else ASK, **at)
            return {"text": reply.choices[0].message.content}
        case "stream" | "killed":
            chunks = library.completion(messages=ASK, stream=True, **at)
            return {"text": "".join(chunk.choices[0].delta.content or "" for chunk in chunks)}
        case "tools":
            reply = library.completion(messages=ASK, tools=TOOLS, tool_choice="required", **at)
            call = reply.choices[0].message.tool_calls[0].function
            return {"call": call.name, "arguments": json.loads(call.arguments)}
        case "structured":
            form = {"type": "json_schema", "json_schema": SCHEMA}
            reply = library.completion(messages=ASK, response_format=form, **at)
            return {"value": json.loads(reply.choices[0].message.content)}
        case "error":
            try:
                library.completion(messages=ASK, **{**at, "model": "openai/nobody"})
            except library.NotFoundError as error:
                return {"code": "model_not_found" if "not served here" in str(error) else "", "status": 404}
    raise NotImplementedError(feature)


def anthropic(feature: str, base: str) -> Result:
    from anthropic import Anthropic, NotFoundError

    client = Anthropic(base_url=base, api_key="EMPTY", max_retries=0)
    asked: Result = {"model": MODEL, "max_tokens": 100, "messages": ASK}
    match feature:
        case "stream" | "killed":
            with client.messages.stream(**asked) as stream:
                return {"text": "".join(stream.text_stream)}
        case "error":
            try:
                client.messages.create(**{**asked, "model": "nobody"})
            except NotFoundError as error:
                return {"code": error.body["error"]["code"], "status": error.status_code}
    raise NotImplementedError(feature)


def llama_index(feature: str, base: str) -> Result:
    from llama_index.core.llms import ChatMessage
    from llama_index.llms.openai_like import OpenAILike

    model = OpenAILike(
        model=MODEL,
        api_base=f"{base}/v1",
        api_key="EMPTY",
        is_chat_model=True,
        max_retries=0,
        context_window=4096,
    )
    ask = [ChatMessage(role="user", content="hello")]
    match feature:
        case "chat":
            return {"text": model.chat(ask).message.content}
        case "stream" | "killed":
            return {"text": "".join(chunk.delta or "" for chunk in model.stream_chat(ask))}
    raise NotImplementedError(feature)


def instructor(feature: str, base: str) -> Result:
    import instructor as library
    from openai import OpenAI
    from pydantic import BaseModel

    class Point(BaseModel):
        x: int

    mode = library.Mode.TOOLS if feature == "tools" else library.Mode.JSON_SCHEMA
    client = library.from_openai(OpenAI(base_url=f"{base}/v1", api_key="EMPTY", max_retries=0), mode=mode)
    point = client.chat.completions.create(model=MODEL, messages=ASK, response_model=Point, max_retries=1)
    return {"call": "tap", "arguments": {"x": point.x}} if feature == "tools" else {"value": {"x": point.x}}


def ollama(feature: str, base: str) -> Result:
    from ollama import Client, ResponseError

    client = Client(host=base)
    look = [{"role": "user", "content": "look", "images": [PIXEL]}]
    match feature:
        case "chat" | "picture":
            reply = client.chat(MODEL, look if feature == "picture" else ASK)
            return {"text": reply.message.content, "usage": reply.eval_count}
        case "stream" | "killed":
            return {
                "text": "".join(part.message.content or "" for part in client.chat(MODEL, ASK, stream=True))
            }
        case "generate":
            return {"text": "".join(part.response for part in client.generate(MODEL, "hello", stream=True))}
        case "tools":
            call = client.chat(MODEL, ASK, tools=TOOLS).message.tool_calls[0].function
            return {"call": call.name, "arguments": dict(call.arguments)}
        case "structured":
            return {"value": json.loads(client.chat(MODEL, ASK, format=SCHEMA["schema"]).message.content)}
        case "models":
            names = [model.model for model in client.list().models]
            shown = client.show(MODEL)
            return {"names": names, "sees": "vision" in shown.capabilities, "loaded": len(client.ps().models)}
        case "error":
            try:
                client.chat("nobody", ASK)
            except ResponseError as error:
                return {
                    "code": "model_not_found" if "not served here" in error.error else "",
                    "status": error.status_code,
                }
    raise NotImplementedError(feature)


CLIENTS: dict[str, Callable[[str, str], Result]] = {
    "openai": openai,
    "langchain-openai": langchain,
    "litellm": litellm,
    "anthropic": anthropic,
    "llama-index": llama_index,
    "instructor": instructor,
    "ollama": ollama,
}

if __name__ == "__main__":
    name, wanted, address = sys.argv[1:]
    sys.stdout.write(json.dumps(CLIENTS[name](wanted, address)) + "\n")
