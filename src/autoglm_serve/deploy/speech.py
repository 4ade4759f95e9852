"""The bundled speech model beside the bundled chat model."""

import logging

from autoglm_serve.config.options import Options
from autoglm_serve.core.errors import ConfigError
from autoglm_serve.core.model import AudioSpan, Capability, ModelFiles, ModelFormat
from autoglm_serve.core.plan import Member, Placement, Plan
from autoglm_serve.demo import demo_speech
from autoglm_serve.deploy.embedded import require_as_shipped
from autoglm_serve.engines import llama_cpp
from autoglm_serve.engines.llama_cpp_speech import LlamaCppSpeech
from autoglm_serve.probe.packages import installed

log = logging.getLogger(__name__)
AUDIO_DECODER = "miniaudio"
"""Has no wheel for every processor, so it may be missing."""
DEMO_SPEECH = "the bundled speech model"
_SPEECH_THREADS = 1
"""llama.cpp's threads wait for each other after every step. On 2 cores that others used too, a clip took
0.8 s with one thread and 1.3 to 16 s with two; on idle ones 0.3 and 0.2 s."""
_SPEECH_SLOTS = 2


def bundled_speech(options: Options, chat: Member) -> tuple[Member, ...]:
    """The bundled speech model beside the bundled chat model; it costs nothing until somebody speaks."""
    if not options.speech or options.model is not None or chat.plan.engine != llama_cpp.LlamaCpp.name:
        return ()
    if not installed(AUDIO_DECODER):
        log.warning("speech is left out: audio is decoded by %s; pip install it", AUDIO_DECODER)
        return ()
    speech = demo_speech()
    require_as_shipped(speech)
    assert speech.min_audio_s is not None
    assert speech.max_audio_s is not None
    plan = Plan(
        engine=LlamaCppSpeech.name,
        placements=(Placement(),),
        threads=_SPEECH_THREADS,
        max_model_len=speech.context_tokens,
        max_num_seqs=_SPEECH_SLOTS,
    )
    member = Member(
        names=_names_of_its_own(options.speech_name or (speech.name,), chat),
        files=ModelFiles(
            reference=DEMO_SPEECH, format=ModelFormat.GGUF, path=speech.gguf, mmproj=speech.mmproj
        ),
        plan=plan,
        capabilities=frozenset({Capability.TRANSCRIPTION}),
        audio=AudioSpan(shortest_s=speech.min_audio_s, longest_s=speech.max_audio_s),
        on_demand=True,
        idle_stop_s=options.speech_idle_s,
    )
    return (member,)


def _names_of_its_own(names: tuple[str, ...], chat: Member) -> tuple[str, ...]:
    """A request names one model. Raises ConfigError where it would name two."""
    both = sorted(set(names) & set(chat.names))
    if both:
        raise ConfigError(
            f"Two models would answer to {both[0]}: the one that chats and the one that hears.",
            next_step="Give one of them another name with --served-model-name or --speech-name.",
        )
    return names
