"""Do transformers and a running server give the same answers, greedily, on the same held-out screens?

    python -m training.agree --url http://127.0.0.1:8000 --seed 1 --count 300

Two taps agree when they are less than one hundredth of the screen apart; everything else must be the
same text. The share of answers that are the same to the last digit is printed too.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoTokenizer, Glm4vForConditionalGeneration, Glm4vImageProcessor

from autoglm_serve.demo import demo_model, judge
from autoglm_serve.demo.evaluate import SCREEN_TASKS, Address, held_out_cases, png, screen_content

NEAR = 10
"""Thousandths of the screen."""


class Reference:
    """The shipped checkpoint in transformers, in float32."""

    def __init__(self, folder: Path) -> None:
        self._model = Glm4vForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._images = Glm4vImageProcessor.from_pretrained(folder)

    def answer(self, picture: bytes, instruction: str) -> str:
        ready = self._images(images=[Image.open(io.BytesIO(picture)).convert("RGB")], return_tensors="pt")
        message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": instruction}]}
        prompt = self._tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
        count = int(ready["image_grid_thw"].prod()) // 4
        ids = self._tokenizer(prompt.replace("<|image|>", "<|image|>" * count), return_tensors="pt")[
            "input_ids"
        ]
        with torch.no_grad():
            out = self._model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                mm_token_type_ids=(ids == self._model.config.image_token_id).int(),
                max_new_tokens=160,
                do_sample=False,
                **ready,
            )
        return str(self._tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


def same(one: str, other: str) -> bool:
    here, there = judge.point_of(one), judge.point_of(other)
    if here and there:
        return max(abs(here[0] - there[0]), abs(here[1] - there[1])) < NEAR
    return one.strip() == other.strip()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", default=demo_model().name)
    parser.add_argument("--folder", type=Path, default=demo_model().hf_dir)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=300)
    options = parser.parse_args()
    reference, address = Reference(options.folder), Address(url=options.url)
    agreed = exact = right = asked = 0
    for task in SCREEN_TASKS:
        for screen, case in held_out_cases(task, options.seed, options.count // len(SCREEN_TASKS)):
            picture = png(screen)
            mine = reference.answer(picture, case.instruction)
            served = address.chat(options.model, screen_content(picture, case.instruction))
            asked += 1
            agreed += same(mine, served)
            exact += mine.strip() == served.strip()
            right += judge.is_right(case, mine)
            sys.stderr.write(f"\r{asked}/{options.count}: same {agreed}")
    print(f"\nsame answer {agreed / asked:.1%}, same text {exact / asked:.1%}, right {right / asked:.1%}")


if __name__ == "__main__":
    main()
