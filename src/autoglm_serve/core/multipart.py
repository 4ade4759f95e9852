"""multipart/form-data: a body's fields, and fields as a body. Pure.

The gateway reads enough to route an upload, which goes on as it came; the speech replica reads all of it.
"""

import re
from collections.abc import Mapping

from autoglm_serve.core.refusal import Refusal

_BOUNDARY = re.compile(rb'boundary="?([^";,\s]{1,70})"?', re.IGNORECASE)
_NAME = re.compile(rb'content-disposition:[^\r\n]*?\bname="([^"]*)"', re.IGNORECASE)


def fields(content_type: bytes, body: bytes) -> dict[str, bytes]:
    """Name → content of every part. Raises Refusal if the body is not multipart/form-data."""
    boundary = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith(b"multipart/form-data") or boundary is None:
        raise Refusal(
            400,
            "not_multipart",
            "This path takes multipart/form-data with a 'file' and a 'model', as the OpenAI API does.",
        )
    found: dict[str, bytes] = {}
    for part in body.split(b"--" + boundary.group(1)):
        head, blank, content = part.partition(b"\r\n\r\n")
        name = _NAME.search(head)
        if blank and name:
            found[name.group(1).decode("utf-8", "replace")] = content.removesuffix(b"\r\n")
    return found


def form(parts: Mapping[str, bytes], boundary: str) -> tuple[bytes, bytes]:
    """The content type and the body of a form; `boundary` must occur in no part."""
    head = '--{}\r\nContent-Disposition: form-data; name="{}"\r\n\r\n'
    written = [head.format(boundary, name).encode() + part + b"\r\n" for name, part in parts.items()]
    written.append(f"--{boundary}--\r\n".encode())
    return f"multipart/form-data; boundary={boundary}".encode(), b"".join(written)
