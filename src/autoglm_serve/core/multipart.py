"""multipart/form-data: a body's fields, and fields as a body. Pure.

The gateway reads enough to route an upload, which goes on as it came; the speech replica reads all of it.
A form costs what finding its delimiters costs: parts and the head of each are bounded, what is in a part is
only passed over. Source of the syntax: RFC 2046, 5.1.1, and RFC 7578.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from autoglm_serve.core.refusal import Refusal

MOST_PARTS = 64
"""Of one form. OpenAI's largest has a dozen fields."""
MOST_HEAD_BYTES = 4096
"""Of the headers in front of one part."""

_STRIDE_BYTES = 1 << 20
_BOUNDARY = re.compile(rb'boundary="?([^";,\s]{1,70})"?', re.IGNORECASE)
_DISPOSITION = b"content-disposition:"
_PARAMETER = re.compile(rb';[ \t]*+([^\s=;"]++)[ \t]*+=[ \t]*+(?:"((?:[^"\\]|\\.)*+)"|([^;]*+))[^;]*+')


@dataclass(frozen=True, slots=True, kw_only=True)
class FormPart:
    """A named part, and where its content starts and ends in the body."""

    name: str
    start: int
    end: int


def parts(content_type: bytes, body: bytes) -> Iterator[FormPart]:
    """The named parts of a form in their order, found one by one.

    Raises Refusal if the body is not multipart/form-data, or has more parts or longer heads than are read.
    """
    boundary = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith(b"multipart/form-data") or boundary is None:
        raise Refusal(
            400,
            "not_multipart",
            "This path takes multipart/form-data with a 'file' and a 'model', as the OpenAI API does.",
        )
    delimiter = b"--" + boundary.group(1)
    at = 0 if body.startswith(delimiter) else _find(body, b"\r\n" + delimiter, 0) + 2
    if at == 1:
        return
    for _ in range(MOST_PARTS):
        start = at + len(delimiter)
        end = _find(body, b"\r\n" + delimiter, start)
        part = _part(body, start, end if end >= 0 else len(body))
        if part is not None:
            yield part
        if end < 0 or body.startswith(b"--", end + 2 + len(delimiter)):
            return
        at = end + 2
    raise _too_large(f"The form has more than {MOST_PARTS} parts, the most that are read.")


def fields(content_type: bytes, body: bytes) -> dict[str, bytes]:
    """Name → content of every part; the last of a name. Raises Refusal like `parts`."""
    return {part.name: body[part.start : part.end] for part in parts(content_type, body)}


def _find(body: bytes, what: bytes, start: int) -> int:
    """As `bytes.find`, in strides: among what nearly is a delimiter it takes 3 ms a MiB, in which no other
    thread runs."""
    while start < len(body):
        at = body.find(what, start, start + _STRIDE_BYTES + len(what))
        if at >= 0:
            return at
        start += _STRIDE_BYTES
    return -1


def _part(body: bytes, start: int, end: int) -> FormPart | None:
    """The part between two delimiters; None where what lies there has no head, or a head without a name."""
    head_end = body.find(b"\r\n\r\n", start, min(end, start + MOST_HEAD_BYTES))
    if head_end < 0:
        if end - start >= MOST_HEAD_BYTES:
            raise _too_large(f"A part of the form has a head of more than {MOST_HEAD_BYTES} bytes.")
        return None
    name = next(filter(None, map(_name_in, body[start:head_end].split(b"\r\n"))), None)
    return None if name is None else FormPart(name=name, start=head_end + 4, end=end)


def _name_in(line: bytes) -> str | None:
    """The name that a Content-Disposition line gives its part; a file's own name is another parameter."""
    if not line.lower().startswith(_DISPOSITION):
        return None
    at = line.find(b";")
    while at >= 0 and (found := _PARAMETER.match(line, at)):
        if found.group(1).lower() == b"name":
            return (found.group(2) or found.group(3) or b"").decode("utf-8", "replace") or None
        at = found.end()
    return None


def _too_large(message: str) -> Refusal:
    return Refusal(400, "form_too_large", message)


def form(parts: Mapping[str, bytes], boundary: str) -> tuple[bytes, bytes]:
    """The content type and the body of a form; `boundary` must occur in no part."""
    head = '--{}\r\nContent-Disposition: form-data; name="{}"\r\n\r\n'
    written = [head.format(boundary, name).encode() + part + b"\r\n" for name, part in parts.items()]
    written.append(f"--{boundary}--\r\n".encode())
    return f"multipart/form-data; boundary={boundary}".encode(), b"".join(written)
