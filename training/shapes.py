"""The two models' shapes: configurations, processors and how a checkpoint folder is written.

Owns every size. The architectures are the real ones (GLM-4.1V, GLM-ASR), small, and friendly to tensor
parallelism: even head counts, head dimensions of 64 and 32. Knows nothing of data or training.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import (
    GenerationConfig,
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vImageProcessor,
    GlmAsrConfig,
    GlmAsrForConditionalGeneration,
    GlmAsrProcessor,
    PreTrainedTokenizerFast,
    WhisperFeatureExtractor,
)

from . import tokenizer as words

HERE = Path(__file__).parent
VISION_CONTEXT_TOKENS = 16384
SPEECH_CONTEXT_TOKENS = 2048
TEXT_LAYERS = 6
ENDS = ("<|endoftext|>", "<|user|>", "<|observation|>", "</answer>")
"""What ends a reply, and is never written out."""
IMAGE_MAX_TOKENS = 330
"""A 1080x2400 screen becomes 12x27 = 324 tokens. 330 keeps both engines' rounding away from a tie."""
PATCH = 14
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
TRANSCRIBE = "Please transcribe this audio into text"


def vision_model(tokenizer: Tokenizer) -> Glm4vForConditionalGeneration:
    """A freshly initialised model that sees and answers, in float32."""

    def number(token: str) -> int:
        found = tokenizer.token_to_id(token)
        assert found is not None, token
        return int(found)

    config = Glm4vConfig(
        text_config={
            "vocab_size": padded(tokenizer.get_vocab_size()),
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_hidden_layers": TEXT_LAYERS,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            # transformers always gives queries, keys and values a bias; vLLM drops it where this is not said.
            "attention_bias": True,
            "max_position_embeddings": VISION_CONTEXT_TOKENS,
            "rms_norm_eps": 1e-5,
            "pad_token_id": number("<|endoftext|>"),
            "eos_token_id": [number(t) for t in ENDS],
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.5,
                "mrope_section": [4, 6, 6],
            },
        },
        vision_config={
            "depth": 6,
            "hidden_size": 192,
            "num_heads": 6,
            "intermediate_size": 384,
            "out_hidden_size": 256,
            "image_size": 336,
            "patch_size": PATCH,
        },
        image_token_id=number("<|image|>"),
        video_token_id=number("<|video|>"),
        image_start_token_id=number("<|begin_of_image|>"),
        image_end_token_id=number("<|end_of_image|>"),
        video_start_token_id=number("<|begin_of_video|>"),
        video_end_token_id=number("<|end_of_video|>"),
    )
    return Glm4vForConditionalGeneration(config)


def speech_model(tokenizer: Tokenizer) -> GlmAsrForConditionalGeneration:
    """A freshly initialised model that hears, made to llama.cpp's variant: no rotary part in the encoder."""
    end = [tokenizer.token_to_id(t) for t in ("<|endoftext|>", "<|user|>", "<|observation|>")]
    config = GlmAsrConfig(
        text_config={
            "vocab_size": padded(tokenizer.get_vocab_size()),
            "hidden_size": 192,
            "intermediate_size": 320,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "max_position_embeddings": SPEECH_CONTEXT_TOKENS,
            "eos_token_id": end,
            "pad_token_id": end[0],
            "bos_token_id": None,
        },
        audio_config={
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_mel_bins": 80,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.0,
            },
        },
        audio_token_id=tokenizer.token_to_id("<|pad|>"),
    )
    return GlmAsrForConditionalGeneration(config)


def padded(vocab_size: int) -> int:
    return -(-vocab_size // 64) * 64


def save_vision(model: Glm4vForConditionalGeneration, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a folder that transformers, vLLM and the converter load."""
    fast = words.wrap(
        tokenizer,
        chat_template=(HERE / "vision_template.jinja").read_text(),
        context_tokens=VISION_CONTEXT_TOKENS,
    )
    _save(model, fast, folder)
    image_processor().save_pretrained(folder)
    preprocessor = json.loads((folder / "preprocessor_config.json").read_text())
    preprocessor["processor_class"] = "Glm4vProcessor"
    _write_json(folder / "preprocessor_config.json", preprocessor)
    video = {**preprocessor, "video_processor_type": "Glm4vVideoProcessor"}
    video.pop("image_processor_type", None)
    _write_json(folder / "video_preprocessor_config.json", video)


def image_processor() -> Glm4vImageProcessor:
    """The limits count a still picture twice, as two frames: GLM-4.1V's rule."""
    pixels = 2 * (2 * PATCH) ** 2
    return Glm4vImageProcessor(size={"shortest_edge": 8 * pixels, "longest_edge": IMAGE_MAX_TOKENS * pixels})


def save_speech(model: GlmAsrForConditionalGeneration, tokenizer: Tokenizer, folder: Path) -> None:
    template = (HERE / "speech_template.jinja").read_text()
    fast = words.wrap(tokenizer, chat_template=template, context_tokens=SPEECH_CONTEXT_TOKENS)
    _save(model, fast, folder)
    features = WhisperFeatureExtractor(feature_size=80)
    processor = GlmAsrProcessor(
        features, fast, chat_template=template, default_transcription_prompt=TRANSCRIBE
    )
    processor.save_pretrained(folder)
    _publish_names(folder / "model.safetensors")


def _publish_names(path: Path) -> None:
    """transformers 5.17 writes the text model's names with one "model." too many; vLLM and z.ai's folder
    have one.
    """
    tensors = load_file(path)
    named = {
        name.replace("language_model.model.model.", "language_model.model."): tensor
        for name, tensor in tensors.items()
    }
    save_file(named, path, metadata={"format": "pt"})


def _save(
    model: Glm4vForConditionalGeneration | GlmAsrForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = model.config.text_config
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=text.eos_token_id, pad_token_id=text.pad_token_id
    )
    half = type(model)(model.config).to(torch.bfloat16)
    half.load_state_dict(model.state_dict())
    half.generation_config = model.generation_config
    half.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
