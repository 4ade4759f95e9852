"""How an engine lays out its KV cache: blocks of tokens, in groups of layers that share a table of blocks.

Source: vLLM's kv_cache_utils (get_kv_cache_groups, get_max_concurrency_for_kv_cache_config) and
kv_cache_interface. Layers of one kind form one group. Where kinds are mixed, every group has as many layers
as the rarest kind (or as the commonest, where it has less than half as many again), the last group of a kind
is filled up, and a block costs the same in each; a state is one block, so a block becomes as long as holds
one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from autoglm_serve.core.facts import Attention, AttentionLayers, TextFacts

BLOCK_TOKENS = 16
SIMILAR = 1.5
"""Kinds whose numbers of layers differ by less than this are filled up to the larger number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Groups of layers that take the same blocks of a request."""

    kind: Attention
    groups: int
    window_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KvLayout:
    """The KV cache of one GPU of a replica."""

    block_bytes: int
    """Of one block in all layers of one group."""
    block_tokens: int
    tables: tuple[Table, ...]
    ahead_tokens: int
    """Tokens that passes under way may still hold of a window: what they read at once."""
    state_blocks: int = 1

    def blocks(self, tokens: int) -> int:
        """That one request of so many tokens takes, over all groups."""
        return sum(table.groups * self._of(table, tokens) for table in self.tables)

    def _of(self, table: Table, tokens: int) -> int:
        match table.kind:
            case Attention.STATE:
                return self.state_blocks
            case Attention.SLIDING:
                held = min(table.window_tokens - 1 + self.ahead_tokens, tokens)
                return ceil(held / self.block_tokens) + 1
            case Attention.FULL | Attention.LATENT:
                return ceil(tokens / self.block_tokens)

    def bytes_of(self, tokens: int) -> int:
        """That one request of so many tokens takes."""
        return self.blocks(tokens) * self.block_bytes

    def blocks_in(self, available_bytes: float) -> int:
        return max(0, int(available_bytes)) // self.block_bytes if self.block_bytes else 0

    def requests(self, available_bytes: float, tokens: int) -> int:
        """Of so many tokens each that fit at the same time."""
        return self.blocks_in(available_bytes) // max(1, self.blocks(max(1, tokens)))

    def tokens(self, available_bytes: float, context_tokens: int) -> int:
        """As the engine reports the cache's size: requests of full length that fit, times their length."""
        blocks = self.blocks_in(available_bytes)
        if (
            len(self.tables) == 1
            and self.tables[0].groups == 1
            and self.tables[0].kind is not Attention.SLIDING
        ):
            return blocks * self.block_tokens
        return int(blocks / max(1, self.blocks(context_tokens)) * context_tokens)

    def longest(self, available_bytes: float, most: int) -> int:
        """Tokens of the longest request that fits, up to `most`; 0 where not even one does."""
        blocks = self.blocks_in(available_bytes)
        if self.blocks(1) > blocks:
            return 0
        low, high = 1, most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.blocks(middle) <= blocks else (low, middle - 1)
        return low


def layout(
    text: TextFacts,
    *,
    ways: int,
    stages: int,
    element_bytes: float = 2.0,
    batched_tokens: int = 0,
    passes_ahead: int = 2,
    state_blocks: int = 1,
) -> KvLayout:
    """The layout on one GPU of a replica of `ways` x `stages`.

    `element_bytes` are those of one number of a key or value; `passes_ahead` are put together before the
    first of them has ended.
    """
    kinds = [(each, ceil(each.layers / stages)) for each in text.kept]
    token_bytes = max(int(each.token_elements(ways) * element_bytes) for each in text.kept)
    block_tokens = _block_tokens(text.kept, ways, token_bytes)
    size = _group_size([layers for _, layers in kinds])
    tables = tuple(
        Table(kind=each.kind, groups=ceil(layers / size), window_tokens=each.window_tokens)
        for each, layers in kinds
    )
    return KvLayout(
        block_bytes=_block_bytes(text.kept, ways, token_bytes, block_tokens) * size,
        block_tokens=block_tokens,
        tables=tables,
        ahead_tokens=passes_ahead * batched_tokens,
        state_blocks=state_blocks,
    )


def _group_size(layers: Sequence[int]) -> int:
    fewest, most = min(layers), max(layers)
    return most if most < fewest * SIMILAR else fewest


def _state(kept: Sequence[AttentionLayers], ways: int) -> int:
    return max((ceil(each.state_bytes / ways) for each in kept if each.kind is Attention.STATE), default=0)


def _block_tokens(kept: Sequence[AttentionLayers], ways: int, token_bytes: int) -> int:
    """16, or as many as make a block of keys and values no smaller than a state."""
    state = _state(kept, ways)
    if not state or not token_bytes:
        return BLOCK_TOKENS
    return BLOCK_TOKENS * max(1, ceil(state / (BLOCK_TOKENS * token_bytes)))


def _block_bytes(kept: Sequence[AttentionLayers], ways: int, token_bytes: int, block_tokens: int) -> int:
    return max(1, token_bytes * block_tokens, _state(kept, ways))
