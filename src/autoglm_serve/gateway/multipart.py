"""The fields of a multipart/form-data body: enough to route an upload, which goes on as it came. Pure."""

import re

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
