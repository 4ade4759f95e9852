"""llama.cpp for a speech model: as the embedded engine, with a process of its own kind in front of it.

Turns a plan into the command line of `speech_host`. Its log and its exits are llama.cpp's.
"""

import sys

from autoglm_serve.core.plan import Member, Placement
from autoglm_serve.engines.base import Command, Listen
from autoglm_serve.engines.llama_cpp import LlamaCpp, flags


class LlamaCppSpeech(LlamaCpp):
    """The `Engine` of a speech model on llama.cpp."""

    name = "llama.cpp-speech"
    option = owned_by = None

    def command(self, member: Member, placement: Placement, listen: Listen) -> Command:
        span = member.audio
        limits = ("--min-audio-s", str(span.shortest_s), "--max-audio-s", str(span.longest_s)) if span else ()
        return Command(
            argv=(
                *(sys.executable, "-m", "autoglm_serve.engines.hosts.speech_host"),
                *listen.flags,
                *flags(member),
                *limits,
                *member.plan.engine_args,
            )
        )
