"""Write a stand-in for AutoGLM-Phone-9B: its config and processor, and a tokenizer of one token a byte.

The weights are a hole in a file: a true safetensors header and 20 GB of nothing, which take no disk. An
engine makes dummy ones of its own (vLLM: --load-format dummy); they take the memory and the time of the real
ones. For measuring where 20 GB cannot be downloaded. Needs transformers, for the tokenizer.

usage: standin_model.py FOLDER [--weights-only]
"""

import json
import struct
import sys
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm_serve.probe.model_facts import implied_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

FIRST_SPECIAL = 151_329
SPECIAL = [
    *("<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>"),
    *("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
    *("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"),
    *("<|image|>", "<|video|>", "<think>", "</think>", "<answer>", "</answer>"),
]
TEMPLATE = (
    "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{% if m.content is string %}{{ m.content }}"
    "{% else %}{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}"
    "{% else %}<|begin_of_image|><|image|><|end_of_image|>{% endif %}{% endfor %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def tokenizer() -> "PreTrainedTokenizerFast":
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    vocabulary |= {f"~{index}~": index for index in range(len(letters), FIRST_SPECIAL)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        chat_template=TEMPLATE,
        padding_side="left",
    )


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    made = tokenizer()
    made.save_pretrained(folder)
    assert made.convert_tokens_to_ids("<|image|>") == 151_343
    profile = resources.files("autoglm_serve.probe") / "profiles" / "autoglm-phone-9b.json"
    known = json.loads(profile.read_text())
    config = known["config"]
    config |= {
        "image_token_id": 151_343,
        "video_token_id": 151_344,
        "image_start_token_id": 151_339,
        "image_end_token_id": 151_340,
        "video_start_token_id": 151_341,
        "video_end_token_id": 151_342,
    }
    config["text_config"] |= {"eos_token_id": [151_329, 151_336, 151_338], "pad_token_id": 151_329}
    image = {"image_processor_type": "Glm4vImageProcessor", "processor_class": "Glm4vProcessor"}
    video = {"video_processor_type": "Glm4vVideoProcessor", "processor_class": "Glm4vProcessor"}
    scale = {
        "do_rescale": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    files = {
        "config.json": config,
        "preprocessor_config.json": known["preprocessor"] | image | scale,
        "video_preprocessor_config.json": known["preprocessor"]
        | video
        | scale
        | {"size": {"shortest_edge": 12_544, "longest_edge": 47_040_000}},
        "generation_config.json": {"eos_token_id": [151_329, 151_336, 151_338], "pad_token_id": 151_329},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1))
    (folder / "chat_template.jinja").write_text(TEMPLATE)


def write_weights(folder: Path) -> None:
    """model.safetensors with every tensor in its header and no data on the disk."""
    header, end = {}, 0
    for tensor in implied_tensors(json.loads((folder / "config.json").read_text())):
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "data_offsets": [end, end + tensor.bytes],
        }
        end += tensor.bytes
    packed = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(packed)) + packed)
        file.truncate(8 + len(packed) + end)


if __name__ == "__main__":
    if sys.argv[2:] != ["--weights-only"]:
        write(Path(sys.argv[1]))
    write_weights(Path(sys.argv[1]))
