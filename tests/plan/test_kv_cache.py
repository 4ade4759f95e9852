"""The KV cache as engines lay it out, by kinds of attention."""

from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_serve.core.facts import Attention, AttentionLayers, TextFacts
from autoglm_serve.plan.kv_cache import layout

GIB = 2**30


def text(*attention: AttentionLayers, layers: int = 40, kv_heads: int = 2, head_dim: int = 128) -> TextFacts:
    return TextFacts(
        layers=layers,
        hidden=4096,
        heads=32,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=13_696,
        vocab=151_552,
        max_positions=65_536,
        tied_embeddings=False,
        attention=attention,
    )


def full(layers: int, heads: int = 16, head_dim: int = 128) -> AttentionLayers:
    return AttentionLayers(
        kind=Attention.FULL, layers=layers, heads=heads, head_dim=head_dim, value_dim=head_dim
    )


def sliding(layers: int, window: int, heads: int = 16, head_dim: int = 128) -> AttentionLayers:
    return AttentionLayers(
        kind=Attention.SLIDING,
        layers=layers,
        heads=heads,
        head_dim=head_dim,
        value_dim=head_dim,
        window_tokens=window,
    )


def test_keys_and_values_of_every_token() -> None:
    """GLM-4.1V: 40 KiB a token, half of that on each of two GPUs and of four."""
    cache = layout(text(), ways=1, stages=1)
    assert cache.block_bytes == 40_960 * 16
    assert cache.tokens(GIB, 25_480) == 26_208
    assert layout(text(), ways=2, stages=1).block_bytes == layout(text(), ways=4, stages=1).block_bytes
    assert layout(text(), ways=1, stages=1, element_bytes=1).block_bytes == 20_480 * 16


def test_a_latent_vector_is_whole_on_each_gpu() -> None:
    """GLM-4.7-Flash: 47 layers of 512 + 64 numbers, however many GPUs."""
    latent = AttentionLayers(kind=Attention.LATENT, layers=47, heads=1, head_dim=576)
    alone, four = (layout(text(latent, layers=47), ways=ways, stages=1) for ways in (1, 4))
    assert alone == four
    assert alone.block_bytes == 47 * 576 * 2 * 16


def test_windows_share_blocks_with_the_layers_that_see_all() -> None:
    """Gemma 3 27B: 10 full layers and 52 with a window of 1,024 make groups of 10: one and six."""
    cache = layout(text(full(10), sliding(52, 1024), layers=62), ways=1, stages=1, batched_tokens=2048)
    assert [table.groups for table in cache.tables] == [1, 6]
    assert cache.block_bytes == 10 * 16 * 256 * 2 * 16
    long, short = cache.blocks(100_000), cache.blocks(1000)
    held = -(-(1023 + 2 * 2048) // 16) + 1
    assert long == 6250 + 6 * held
    assert short == 63 + 6 * (63 + 1)


def test_kinds_of_nearly_equal_numbers_are_filled_up() -> None:
    cache = layout(text(full(13), sliding(12, 128), layers=25), ways=1, stages=1)
    assert [table.groups for table in cache.tables] == [1, 1]
    assert cache.block_bytes == 13 * 16 * 256 * 2 * 16


def test_a_state_is_one_block_and_makes_blocks_longer() -> None:
    """Qwen3.6-35B-A3B: 30 recurrent layers of 2.05 MiB a sequence, 10 full ones of 2 KiB a token."""
    state = AttentionLayers(kind=Attention.STATE, layers=30, state_bytes=2_146_304)
    cache = layout(text(full(10, heads=2, head_dim=256), state, layers=40), ways=1, stages=1)
    assert cache.block_tokens == 1056
    assert [table.groups for table in cache.tables] == [1, 3]
    assert cache.blocks(1) == 4
    assert cache.blocks(32_768) == 32 + 3


@settings(deadline=None)  # a busy machine is no fault
@given(
    tokens=st.integers(1, 10**6),
    available=st.integers(0, 10**12),
    window=st.integers(1, 10**5),
    layers=st.integers(1, 200),
)
def test_the_longest_request_fits_and_one_more_token_does_not(
    tokens: int, available: int, window: int, layers: int
) -> None:
    cache = layout(
        text(full(layers), sliding(2 * layers, window), layers=3 * layers),
        ways=1,
        stages=1,
        batched_tokens=64,
    )
    longest = cache.longest(available, 10**6)
    assert longest == 0 or cache.bytes_of(longest) <= available
    assert longest == 10**6 or cache.bytes_of(longest + 1) > available
    assert cache.requests(available, tokens) == 0 or tokens <= longest or longest == 10**6
