"""The process that decodes pictures: `python -m autoglm_serve.gateway.media.picture_process`.

Reads one picture after the other from its standard input, as base64 behind the length of it, and answers with
the same picture upright, in a format that every engine reads. Decoders are where hostile files do harm: here
they can take no more than this process, its memory is bounded, and it ends with whoever started it.
"""

import base64
import io
import resource
import struct
import sys
import warnings
from typing import BinaryIO

from PIL import Image, ImageOps

LENGTH = struct.Struct(">I")
DONE, FAILED = b"+", b"-"
FAILED_BYTES = 200
"""At most, of the reason."""
MOST_PIXELS = 50_000_000
MOST_PNG_BYTES = 8 << 20
"""What is larger losslessly is a photograph and goes out as JPEG."""
_MEMORY_BYTES = 2 << 30
_QUALITY = 95


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS  # twice as many raise; the gateway has looked at the header before
    serve(sys.stdin.buffer, sys.stdout.buffer)


def serve(questions: BinaryIO, answers: BinaryIO) -> None:
    """Answer until there are no more."""
    while len(length := questions.read(LENGTH.size)) == LENGTH.size:
        data = questions.read(LENGTH.unpack(length)[0])
        try:
            media_type, picture = readable(base64.b64decode(data.replace(b"\\/", b"/")))
            status, answer = DONE, b"data:%b;base64,%b" % (media_type, base64.b64encode(picture))
        except Exception as error:  # noqa: BLE001 (decoders raise what they like; what it is, is told)
            status, answer = FAILED, str(error).encode("ascii", "replace")[:FAILED_BYTES]
        answers.write(status + LENGTH.pack(len(answer)) + answer)
        answers.flush()


def readable(data: bytes) -> tuple[bytes, bytes]:
    """The media type and the bytes of the same picture, upright, as PNG or JPEG; of an animation the first
    frame. Raises what Pillow raises."""
    with Image.open(io.BytesIO(data), formats=("WEBP", "JPEG", "PNG")) as opened:
        was_jpeg = opened.format == "JPEG"
        picture = _plain(ImageOps.exif_transpose(opened))
    if not was_jpeg:
        out = io.BytesIO()
        picture.save(out, "PNG", compress_level=1)
        if out.tell() <= MOST_PNG_BYTES:
            return b"image/png", out.getvalue()
        picture = picture.convert("RGB")
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=_QUALITY, subsampling=0)
    return b"image/jpeg", out.getvalue()


def _plain(picture: Image.Image) -> Image.Image:
    """In one of the modes that PNG and JPEG share, without colour profile; transparency on white, as other
    engines lay it."""
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture if picture.mode in ("RGB", "L") else picture.convert("RGB")


if __name__ == "__main__":
    main()
