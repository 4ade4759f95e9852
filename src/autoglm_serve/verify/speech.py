"""Whether a model that hears writes down what was said."""

import random

from autoglm_serve.demo import evaluate, judge, speech

from .finding import failed, skipped
from .served_model import ServedModel
from .server import NotAnswered

_PHRASES = 3
_MOST_ERRORS = 0.2
_HEARS = ("asr", "whisper", "speech", "transcri", "voxtral")


def transcription(subject: ServedModel) -> str:
    """Commands that a synthetic voice speaks are written down."""
    name = next(
        (one.name for one in subject.served if any(word in one.name.lower() for word in _HEARS)), None
    )
    if name is None:
        raise skipped("no model that hears is listed")
    if not speech.available():
        raise skipped("espeak-ng, which speaks the commands, is not on the PATH")
    rng = random.Random("verify")
    said = wrong = 0
    for _ in range(_PHRASES):
        phrase = speech.phrase(rng, held_out=True)
        wav = speech.speak(phrase, speech.speaker(rng, phrase.language, held_out=True), rng)
        units = judge.units(phrase.words, phrase.language)
        said += len(units)
        wrong += judge.errors(units, judge.units(_written(subject, name, wav), phrase.language))
    if wrong > _MOST_ERRORS * said:
        raise failed(
            f"{wrong} of {said} words or characters are wrong.", "Check the speech model and its sample rate."
        )
    return f"{said - wrong} of {said} words or characters of {_PHRASES} commands"


def _written(subject: ServedModel, name: str, wav: bytes) -> str:
    address = subject.address
    hearing = evaluate.Address(url=address.url, key=address.key, timeout_s=address.timeout_s)
    try:
        return hearing.transcribe(name, wav)
    except evaluate.NoAnswer as error:
        raise NotAnswered(str(error)) from error
