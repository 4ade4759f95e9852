"""The training pass computes what transformers computes: otherwise another model would be trained than
ships.
"""

from __future__ import annotations

import importlib
import random
from typing import Any

import pytest

from autoglm_serve.demo.paint import FONTS

np = pytest.importorskip("numpy", reason="training needs numpy")
torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("transformers", reason="training needs transformers")

# Imported by name: these modules import torch, which type checking goes without.
shapes, tokenizer, vision_data, vision_forward, corpus = (
    importlib.import_module(f"training.{name}")
    for name in ("shapes", "tokenizer", "vision_data", "vision_forward", "corpus")
)


@pytest.fixture(scope="module")
def words() -> Any:
    return tokenizer.learn(corpus.sample(200), special=tokenizer.VISION_SPECIAL, vocab_size=900)


def test_pictures_become_the_embeddings_that_transformers_makes(words: Any) -> None:
    torch.manual_seed(0)
    model = shapes.vision_model(words).eval()
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 112, 84, 3), np.uint8))
    processor = shapes.Glm4vImageProcessor(do_resize=False)
    ready = processor(images=[picture.numpy() for picture in pixels], return_tensors="pt")
    with torch.no_grad():
        theirs = model.model.visual(ready["pixel_values"], ready["image_grid_thw"]).pooler_output
        ours = vision_forward.see(model.model.visual, pixels)
    torch.testing.assert_close(ours.flatten(0, 1), theirs, atol=1e-4, rtol=1e-3)


def test_a_branch_gets_the_logits_and_the_looks_of_the_same_conversation_alone(words: Any) -> None:
    torch.manual_seed(0)
    model = shapes.vision_model(words).eval()
    batch = vision_data.Screens(tokenizer=words, fonts=list(FONTS), seed="test", batch=1).batch(0)
    grid, image = batch["grid"], words.token_to_id("<|image|>")
    with torch.no_grad():
        seen = vision_forward.see(model.model.visual, batch["pixels"])
        tokens, branch = batch["tokens"].long(), batch["branch"]
        embedded = model.model.language_model.embed_tokens(tokens)
        embedded[tokens == image] = seen.flatten(0, 1)
        mask = vision_forward.branch_mask(branch)
        asked = batch["point"][..., 0].long().clamp(min=0)
        hidden, looks = vision_forward.read(model, embedded, batch["place"].long(), mask, asked)
        ours = model.lm_head(hidden)
        alone = (branch[0] == 0) | (branch[0] == branch[0, asked[0, 0]])
        rows, columns = (int(side) for side in grid)
        ready = shapes.Glm4vImageProcessor(do_resize=False)(
            images=[batch["pixels"][0].numpy()], return_tensors="pt"
        )
        ids = tokens[:, alone]
        model.set_attn_implementation("eager")
        theirs = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=ready["pixel_values"],
            image_grid_thw=torch.tensor([[1, 2 * rows, 2 * columns]]),
            mm_token_type_ids=(ids == image).int(),
            output_attentions=True,
        )
    torch.testing.assert_close(ours[:, alone], theirs.logits, atol=2e-3, rtol=1e-2)
    groups = model.config.text_config.num_attention_heads // model.config.text_config.num_key_value_heads
    attention = theirs.attentions[vision_forward.LOOKING_LAYER][:, ::groups]
    mine = (batch["point"][0, :, 0] >= 0) & alone[asked[0]]
    at = alone.long().cumsum(0)[asked[0, mine]] - 1
    torch.testing.assert_close(looks[:, :, mine][..., alone].exp(), attention[:, :, at], atol=1e-4, rtol=1e-2)


def test_batches_come_from_the_seed_alone(words: Any) -> None:
    def first(seed: str) -> bytes:
        source = vision_data.Screens(tokenizer=words, fonts=list(FONTS), seed=seed, batch=2)
        return bytes(source.batch(0)["pixels"].numpy().tobytes())

    assert first("a") == first("a")
    assert first("a") != first("b")


def test_the_image_grid_is_the_one_that_the_processor_makes() -> None:
    processor = shapes.image_processor()
    rng = random.Random(0)
    for width, height in [
        *vision_data.SIZES_PX,
        *((rng.randrange(400, 3000), rng.randrange(400, 3000)) for _ in range(20)),
    ]:
        grid = vision_data.grid_of(width, height)
        ready = processor(images=[np.zeros((height, width, 3), np.uint8)], return_tensors="pt")
        assert ready["image_grid_thw"].tolist() == [[1, 2 * grid.rows, 2 * grid.columns]]
