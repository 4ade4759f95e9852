"""The training pass computes what transformers computes: otherwise another model would be trained than
ships.
"""

from __future__ import annotations

import importlib
import random
from pathlib import Path
from typing import Any

import pytest

from autoglm_serve.demo.paint import FONTS

np = pytest.importorskip("numpy", reason="training needs numpy")
torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("transformers", reason="training needs transformers")

# Imported by name: these modules import torch, which type checking goes without.
shapes, tokenizer, vision_data, vision_forward, corpus, graft = (
    importlib.import_module(f"training.{name}")
    for name in ("shapes", "tokenizer", "vision_data", "vision_forward", "corpus", "graft")
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


def source(words: Any, seed: str, rows: int = 1) -> Any:
    shape = vision_data.Shape(length=1024, rows=rows, system_tokens=(10, 100))
    return vision_data.Screens(tokenizer=words, fonts=list(FONTS), seed=seed, shapes=((shape, 1.0),))


def read(model: Any, batch: Any, image: int) -> Any:
    seen = vision_forward.see(model.model.visual, batch["pixels"])
    tokens = batch["tokens"].long()
    embedded = model.model.language_model.embed_tokens(tokens)
    embedded[tokens == image] = seen.flatten(0, 1)
    mask = vision_forward.branch_mask(batch["branch"])
    asked = tuple(batch[name][..., 0].long().clamp(min=0) for name in ("image_point", "text_point"))
    return vision_forward.read(model, embedded, batch["place"].long(), mask, asked)


def theirs_of(model: Any, ids: Any, pixels: Any, image: int) -> Any:
    """What transformers makes of one conversation with one picture."""
    rows, columns = pixels.shape[0] // 28, pixels.shape[1] // 28
    ready = shapes.Glm4vImageProcessor(do_resize=False)(images=[pixels.numpy()], return_tensors="pt")
    model.set_attn_implementation("eager")
    return model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values=ready["pixel_values"],
        image_grid_thw=torch.tensor([[1, 2 * rows, 2 * columns]]),
        mm_token_type_ids=(ids == image).int(),
        output_attentions=True,
    )


def test_a_branch_gets_the_logits_and_the_looks_of_the_same_conversation_alone(words: Any) -> None:
    torch.manual_seed(0)
    model = shapes.vision_model(words).eval()
    batch = source(words, "test").batch(0)
    image = words.token_to_id("<|image|>")
    with torch.no_grad():
        ours = read(model, batch, image)
        branch = batch["branch"]
        asked = batch["image_point"][..., 0].long().clamp(min=0)
        alone = (branch[0] == 0) | (branch[0] == branch[0, asked[0, 0]])
        theirs = theirs_of(model, batch["tokens"].long()[:, alone], batch["pixels"][0], image)
    torch.testing.assert_close(model.lm_head(ours.hidden)[:, alone], theirs.logits, atol=2e-3, rtol=1e-2)
    groups = model.config.text_config.num_attention_heads // model.config.text_config.num_key_value_heads
    attention = theirs.attentions[vision_forward.LOOKING_LAYERS[0]][:, ::groups]
    mine = (batch["image_point"][0, :, 0] >= 0) & alone[asked[0]]
    at = alone.long().cumsum(0)[asked[0, mine]] - 1
    looks = ours.looks[0][:, :, mine][..., alone].exp()
    torch.testing.assert_close(looks, attention[:, :, at], atol=1e-4, rtol=1e-2)


def test_a_step_of_an_errand_sees_the_history_before_it_and_its_own_screen(words: Any) -> None:
    torch.manual_seed(0)
    model = shapes.vision_model(words).eval()
    errands = source(words, "errand")
    grid = vision_data.grid_of(1080, 2400)
    shape = vision_data.Shape(length=2048, rows=1, system_tokens=(10, 100))
    rng = random.Random("several steps")
    while True:
        journey = errands._journey(grid, rng)
        row = errands.errand(shape, journey, grid, rng)
        if len(row.pictures) > 2:
            break
    batch = {
        name: torch.from_numpy(value)
        for name, value in vision_data.stacked([row], length=2048, most_branches=40, most_points=320).items()
    }
    batch["pixels"] = torch.from_numpy(np.stack([picture.pixels for picture in row.pictures]))
    image = words.token_to_id("<|image|>")
    branch = batch["branch"][0]
    with torch.no_grad():
        ours = model.lm_head(read(model, batch, image).hidden)
        mine = branch == len(row.pictures)
        before = (branch == 0) & (torch.arange(len(branch)) < mine.nonzero()[0])
        alone = before | mine
        theirs = theirs_of(model, batch["tokens"].long()[:, alone], batch["pixels"][-1], image)
    torch.testing.assert_close(ours[:, alone], theirs.logits, atol=2e-3, rtol=1e-2)


def test_a_deeper_model_begins_as_the_shallower_one(words: Any, tmp_path: Path) -> None:
    """Its new layers add next to nothing at first."""
    torch.manual_seed(0)
    shallow = shapes.vision_model(words).eval()
    layers = shallow.model.language_model.layers
    kept = [layers[place] for place in range(4)]
    shallow.model.language_model.layers = torch.nn.ModuleList(kept)
    shallow.config.text_config.num_hidden_layers = 4
    ids = torch.tensor([words.encode("[gMASK]<sop><|user|>\n点击设置<|assistant|>\n").ids])
    names = {name: value.contiguous() for name, value in shallow.state_dict().items()}
    shapes.save_file(names, tmp_path / "model.safetensors", metadata={"format": "pt"})
    deep = shapes.vision_model(words).eval()
    graft.graft(tmp_path, deep)
    graft_still = deep.state_dict()
    for place in (2, 4):
        for norm in ("post_self_attn_layernorm", "post_mlp_layernorm"):
            weight = graft_still[f"model.language_model.layers.{place}.{norm}.weight"]
            assert (weight == graft.STILL).all()
            weight.zero_()
    with torch.no_grad():
        torch.testing.assert_close(deep(input_ids=ids).logits, shallow(input_ids=ids).logits)


def test_batches_come_from_the_seed_alone(words: Any) -> None:
    def first(seed: str) -> bytes:
        return bytes(source(words, seed, rows=2).batch(0)["pixels"].numpy().tobytes())

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
