"""Model facts: where a config comes from (a folder, a profile that ships here, a hub), and what it means.

It reads headers only, never weights; what it cannot know it leaves out, and says in `notes`. The keys of a
config are told by `text_facts`, `vision_facts` and `quantization_facts`; any architecture without rules in
`families` gets facts that make the planner careful.
"""

import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

from autoglm_serve.core.errors import ModelError
from autoglm_serve.core.facts import Attention, ModelFacts, QuantizationFacts, TextFacts, VisionFacts
from autoglm_serve.core.model import Capability
from autoglm_serve.probe.checkpoint import Tensor, groups, is_draft, read_headers
from autoglm_serve.probe.config_values import Config, Lacking, Meaningless, architecture
from autoglm_serve.probe.families import FAMILIES, RULES_IN_WORDS, Family
from autoglm_serve.probe.implied_tensors import derived, implied_tensors, linears
from autoglm_serve.probe.quantization_facts import quantization_facts, quantized, seen_bits
from autoglm_serve.probe.text_facts import text_facts
from autoglm_serve.probe.vision_facts import vision_facts

HUB_ANSWERS_S = 5.0
LARGEST_JSON_BYTES = 16 * 2**20
"""Real configs have a few KiB; a larger file is something else."""

PROFILES: Mapping[str, str] = {
    "zai-org/AutoGLM-Phone-9B": "autoglm-phone-9b.json",
    "zai-org/AutoGLM-Phone-9B-Multilingual": "autoglm-phone-9b.json",
    "ZhipuAI/AutoGLM-Phone-9B": "autoglm-phone-9b.json",
    "ZhipuAI/AutoGLM-Phone-9B-Multilingual": "autoglm-phone-9b.json",
}
"""Models whose config ships with this package, so that a plan needs no network."""


# --- where a config comes from ---------------------------------------------------------------------------


def from_profile(reference: str) -> ModelFacts | None:
    """Facts of a model this package ships the config of; None for any other."""
    name = PROFILES.get(reference)
    if name is None:
        return None
    profile = json.loads(resources.files(__package__).joinpath("profiles", name).read_text())
    return from_config(
        reference,
        profile["config"],
        preprocessor=profile["preprocessor"],
        recommended_max_model_len=profile["recommended_max_model_len"],
    )


def from_folder(folder: Path, reference: str | None = None) -> ModelFacts:
    """Facts of a model in a local folder. Raises ModelError where it holds none that an engine could load."""
    name = reference or str(folder)
    if not (folder / "config.json").is_file():
        raise _no_model(folder)
    config = _json(folder / "config.json")
    preprocessor = next(
        (_json(path) for path in (folder / "preprocessor_config.json",) if path.is_file()), {}
    )
    return from_config(name, config, preprocessor=preprocessor, tensors=read_headers(folder))


def from_hub(
    reference: str,
    *,
    endpoint: str | None = None,
    cache: Path | None = None,
    revision: str | None = None,
) -> ModelFacts:
    """Facts of a repository on the Hugging Face hub: two small files, and tensor headers by range requests.

    `endpoint` and `cache` are huggingface_hub's own where they are None. Raises ModelError where the hub
    cannot be reached or has no such model.
    """
    import huggingface_hub as hub
    from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError

    api = hub.HfApi(endpoint=endpoint)
    unreachable = _why_unreachable(api.endpoint)
    if unreachable:
        raise ModelError(
            f"{reference} cannot be read from the hub.",
            why=unreachable,
            next_step="check the network, or give --model a local folder",
        )
    try:
        config = _json(
            Path(api.hf_hub_download(reference, "config.json", revision=revision, cache_dir=cache))
        )
        metadata = api.get_safetensors_metadata(reference, revision=revision)
    except (NotASafetensorsRepoError, SafetensorsParsingError) as error:
        raise ModelError(
            f"{reference} has no safetensors weights that can be read.",
            why=str(error).splitlines()[0],
            next_step="plan for one in safetensors; a GGUF file is run by `autoglm serve --model FILE`",
        ) from error
    except (OSError, ValueError, hub.errors.EntryNotFoundError) as error:
        raise ModelError(
            f"{reference} cannot be read from the hub.",
            why=str(error).splitlines()[0],
            next_step="check the name and the network, or give --model a local folder",
        ) from error
    tensors = [
        Tensor(name=name, shape=tuple(info.shape), dtype=info.dtype)
        for file in metadata.files_metadata.values()
        for name, info in file.tensors.items()
    ]
    preprocessor: Config = {}
    with suppress(OSError, hub.errors.EntryNotFoundError):  # text models have none
        name = "preprocessor_config.json"
        preprocessor = _json(Path(api.hf_hub_download(reference, name, revision=revision, cache_dir=cache)))
    return from_config(reference, config, preprocessor=preprocessor, tensors=tensors)


def _why_unreachable(endpoint: str) -> str:
    """Empty where the hub answers, or where a proxy is in between. The hub's own client tries for 23 s."""
    from urllib.request import getproxies  # here: slow to import, and only needed for a hub

    if getproxies():
        return ""
    address = urlsplit(endpoint)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=HUB_ANSWERS_S).close()
    except OSError as error:
        return f"{address.netloc} cannot be reached: {error.strerror or error}"
    return ""


def _no_model(folder: Path) -> ModelError:
    if (folder / "adapter_config.json").is_file():
        return ModelError(
            f"{folder} holds a LoRA adapter, not a model.",
            why="it has adapter_config.json and no config.json",
            next_step="give --model the base model, and hand the adapter to the engine after -- "
            "(vLLM: --enable-lora --lora-modules NAME=FOLDER), or merge it first",
        )
    if not folder.is_dir():
        return ModelError(f"{folder} is not there.", next_step="give --model a folder or a hub repository")
    return ModelError(
        f"{folder} is no model.",
        why="it has no config.json",
        next_step="give --model the folder with config.json and the safetensors files",
    )


def _json(path: Path) -> Config:
    try:
        if (size := path.stat().st_size) > LARGEST_JSON_BYTES:
            raise ValueError(f"it has {size:,} bytes")
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{path} cannot be read.", why=str(error), next_step="download the file again"
        ) from error
    if not isinstance(loaded, dict):
        raise ModelError(f"{path} is no JSON object.", next_step="download the file again")
    return loaded


# --- what a config says ----------------------------------------------------------------------------------


def from_config(
    reference: str,
    config: Config,
    *,
    preprocessor: Config | None = None,
    tensors: Iterable[Tensor] = (),
    recommended_max_model_len: int | None = None,
) -> ModelFacts:
    """Facts from a parsed config. Raises ModelError naming the key that is missing or means nothing."""
    name = architecture(config)
    family = FAMILIES.get(name)
    rules = family or Family()
    listed = tuple(tensors)
    try:
        text = text_facts(config, rules, listed)
        vision = vision_facts(config, preprocessor or {}, rules)
        stored = quantization_facts(config)
        if stored is not None and listed:
            stored = seen_bits(stored, text, listed)
        implied = _implied(config, text, vision, stored)
        held = listed or implied
    except Meaningless as problem:
        raise ModelError(
            f"The config.json of {reference} cannot be planned with: {problem}.",
            why="the planner takes sizes from there and from preprocessor_config.json",
            next_step="download the files again, or mend them",
        ) from problem
    except Lacking as problem:
        raise ModelError(
            f"The config.json of {reference} lacks {problem}.",
            why="the planner cannot size the model without it, and no tensor's shape tells it",
            next_step="check that the folder holds a complete language model, then try again",
        ) from problem
    return ModelFacts(
        reference=reference,
        architecture=name,
        known=family is not None,
        text=text,
        groups=groups(
            (tensor for tensor in held if not is_draft(tensor.name, text.layers)),
            tower_split=family is not None and rules.tower_split,
            bits=stored.bits if stored else 4,
        ),
        vision=vision,
        capabilities=_capabilities(vision, rules),
        quantization=stored.method if stored else None,
        stored=stored,
        from_headers=bool(listed),
        family=_family_in_words(vision, rules),
        content_format=rules.content_format,
        recommended_max_model_len=recommended_max_model_len,
        notes=(*_notes(name, family, text, vision), *_whole(listed, implied)),
    )


def _implied(
    config: Config, text: TextFacts, vision: VisionFacts | None, stored: QuantizationFacts | None
) -> tuple[Tensor, ...]:
    plain = tuple(derived(config, text, vision))
    return tuple(quantized(plain, stored, linears(plain))) if stored else plain


LEAST_SHARE = 0.5
"""Of the bytes that a config implies, before what the headers hold is taken for the whole model."""


def _whole(listed: tuple[Tensor, ...], implied: tuple[Tensor, ...]) -> Iterator[str]:
    """Headers that hold far less than the config says."""
    held, expected = sum(each.bytes for each in listed), sum(each.bytes for each in implied)
    if listed and held < LEAST_SHARE * expected:
        yield (
            f"the safetensors files hold {held / 2**30:.1f} GiB, where config.json implies about "
            f"{expected / 2**30:.1f}: the model may not be here as a whole, and the plan is for what is"
        )


def _family_in_words(vision: VisionFacts | None, rules: Family) -> str:
    if vision is None:
        return ""
    return RULES_IN_WORDS.get(
        rules.vision or "", "not known here: patches at the image's own size are assumed"
    )


def _capabilities(vision: VisionFacts | None, rules: Family) -> frozenset[Capability]:
    if rules.speech:
        return frozenset({Capability.CHAT, Capability.TRANSCRIPTION})
    return frozenset({Capability.CHAT, Capability.VISION} if vision else {Capability.CHAT})


def _notes(name: str, family: Family | None, text: TextFacts, vision: VisionFacts | None) -> Iterator[str]:
    """What is not known of an architecture without rules, and which way a plan may be off for it."""
    if family is not None:
        return
    said = (
        f"{name} is not an architecture this planner knows: figures carry a larger margin; its weights are "
        "counted as stored, and a twentieth more is kept back for what the engine builds beside them"
    )
    if any(each.kind is Attention.STATE for each in text.kept):
        said += "; its recurrent layers' state is a guess, so the KV tokens may be off by a tenth either way"
    if vision is not None:
        said += (
            "; images are counted patch by patch at their own size, so a family that scales or tiles them "
            "takes fewer tokens than planned, hardly ever more"
        )
    yield said


__all__ = ["from_config", "from_folder", "from_hub", "from_profile", "implied_tensors"]
