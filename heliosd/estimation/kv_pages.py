"""How many tokens some bytes of KV cache hold, and how many bytes some tokens need: blocks, groups and pipeline stages.

Rules as vLLM has them in its cache manager: bytes // bytes of a block, the largest group of layers deciding; the block
that the engine keeps for itself included.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from heliosd.estimation.kv_groups import LOCAL, Group, Page, groups_of, merged
from heliosd.estimation.kv_kinds import Keeps
from heliosd.estimation.kv_launch import CacheLaunch, LayerSpec

KERNEL_BLOCK = {"cpu": 32}
DEFAULT_BLOCK = {"cpu": 128}
USUAL_BLOCK = 16
LATENT_KERNEL_BLOCK = 128
"""To which the block of hybrids with MLA is a multiple, for the decode kernels' sake."""
COMPRESSED_BLOCK = 256


@dataclass(frozen=True, slots=True)
class KvPages:
    """The KV cache of one model under one launch: everything but its size."""

    groups: tuple[Group, ...]
    block_tokens: int
    """The engine's block size, raised where states ask for it."""
    stage_block_bytes: tuple[int, ...]
    """Bytes of one block on a rank of each pipeline stage."""
    launch: CacheLaunch

    @property
    def block_bytes(self) -> int:
        """On the rank that needs most; 0 when nothing is kept."""
        return max(self.stage_block_bytes, default=0)

    def blocks(self, available_bytes: int | Sequence[int]) -> int:
        """Blocks that fit into what each rank has (one number for all, or one for each pipeline stage)."""
        if not self.block_bytes:
            return 0
        needs = self.stage_block_bytes
        room = available_bytes if isinstance(available_bytes, Sequence) else [available_bytes] * len(needs)
        return max(0, min(have // need for have, need in zip(room, needs, strict=True) if need))

    def request_blocks(self, length: int) -> int:
        """Blocks that a request of `length` tokens may hold at once, over all groups."""
        return sum(max(_request_blocks(page, length, self.launch) for page, _ in group.parts) for group in self.groups)

    def max_concurrency(self, length: int, available_bytes: int | Sequence[int]) -> float:
        """Requests of `length` tokens that fit at once; infinite when nothing is kept."""
        needed = self.request_blocks(length)
        return self.blocks(available_bytes) / needed if needed else float("inf")

    def tokens_in(self, available_bytes: int | Sequence[int]) -> int:
        """The size of the cache in tokens, as the engine of this version prints it; 0 when nothing is kept."""
        return self.tokens_of(self.blocks(available_bytes))

    def tokens_of(self, blocks: int) -> int:
        """The size of a cache of `blocks` blocks in tokens, as the engine of this version prints it.

        Before 0.20.1: whole blocks of each group times its tokens. Since: max_model_len times the maximum concurrency.
        """
        if not self.groups or not blocks:
            return 0
        launch = self.launch
        if launch.legacy or launch.version < (0, 20, 1):
            smallest = min(group.first.block_tokens for group in self.groups)
            ranks = launch.decode_context_parallel * launch.prefill_context_parallel
            return blocks // len(self.groups) * smallest * ranks
        return int(blocks / max(1, self.request_blocks(launch.max_model_len)) * launch.max_model_len)

    def bytes_for(self, tokens: int) -> int:
        """The least bytes on the neediest rank of which `tokens_in` says at least `tokens`."""
        if not self.groups or tokens <= 0:
            return 0
        blocks = self._blocks_near(tokens)
        while self.tokens_of(blocks) < tokens:
            blocks += 1
        while blocks > 1 and self.tokens_of(blocks - 1) >= tokens:
            blocks -= 1
        return blocks * self.block_bytes

    def bytes_for_requests(self, requests: int, length: int) -> int:
        """Bytes on the neediest rank for `requests` at once of `length` tokens; the engine's own block included.

        With `requests` 1 and the launch's max_model_len: the least with which the engine starts.
        """
        return (self.request_blocks(length) * requests + 1) * self.block_bytes if self.groups else 0

    def _blocks_near(self, tokens: int) -> int:
        launch = self.launch
        if launch.legacy or launch.version < (0, 20, 1):
            smallest = min(group.first.block_tokens for group in self.groups)
            ranks = launch.decode_context_parallel * launch.prefill_context_parallel
            return -(-tokens // (smallest * ranks)) * len(self.groups)
        return -(-tokens * self.request_blocks(launch.max_model_len) // launch.max_model_len)


def kv_pages(specs: Sequence[LayerSpec], launch: CacheLaunch) -> KvPages:
    """Cuts what layers keep into blocks, and groups them."""
    kept = tuple(specs) if launch.hybrid_allocator else _all_full(specs)
    block = block_tokens(kept, launch)
    groups = groups_of(layer_pages(kept, block, launch), launch)
    layers = max((spec.layers[-1] + 1 for spec in kept if spec.layers), default=0)
    model_layers = max(0, layers - launch.draft_layers)
    stages = stage_bounds(model_layers, launch.pipeline_parallel)
    if stages:
        stages[-1] = (stages[-1][0], layers)
    sizes = tuple(max((group.block_bytes(*stage) for group in groups), default=0) for stage in stages)
    return KvPages(groups, block, sizes, launch)


def stage_bounds(layers: int, stages: int) -> list[tuple[int, int]]:
    """(first, behind the last) layer of each pipeline stage; what is over goes to the stages before the last."""
    counts = [layers // stages] * stages
    for place in range(2, layers % stages + 2):
        counts[-place] += 1
    ends = [sum(counts[: place + 1]) for place in range(stages)]
    return [(end - count, end) for end, count in zip(ends, counts, strict=True)]


def block_tokens(specs: Sequence[LayerSpec], launch: CacheLaunch) -> int:
    """Tokens of a block: given, or the platform's; for hybrids as many as make a page as large as the largest state."""
    attention = next((spec for spec in specs if spec.keeps is not Keeps.STATE and spec.role in ("", "rows")), None)
    if any(spec.role == "window" for spec in specs):
        return COMPRESSED_BLOCK
    block = launch.block_size or _default_block(attention, launch)
    states = [spec.state_bytes for spec in specs if spec.keeps is Keeps.STATE]
    if attention is None or not states:
        return block
    kernel = KERNEL_BLOCK.get(launch.platform, USUAL_BLOCK)
    step = max(kernel, block, LATENT_KERNEL_BLOCK if attention.latent else 0)
    needed = step * -(-max(states) // (step * attention.token_bytes))
    return max(block, -(-needed // kernel) * kernel)


def _default_block(attention: LayerSpec | None, launch: CacheLaunch) -> int:
    if launch.platform == "cpu":
        return USUAL_BLOCK if attention is not None and attention.latent else DEFAULT_BLOCK["cpu"]
    sparse = attention is not None and attention.latent and attention.entry_bytes in (656, 352)
    return 64 if sparse else USUAL_BLOCK


def _all_full(specs: Sequence[LayerSpec]) -> tuple[LayerSpec, ...]:
    """Layers with a window count as full ones beside full ones."""
    if not any(spec.keeps is Keeps.FULL for spec in specs):
        return tuple(specs)
    return tuple(replace(spec, keeps=Keeps.FULL, window=0) if spec.keeps in LOCAL else spec for spec in specs)


def layer_pages(specs: Sequence[LayerSpec], block: int, launch: CacheLaunch) -> tuple[Page, ...]:
    """What the layers ask for by themselves, before pages are made equal; `block` as of `block_tokens`."""
    kernel = KERNEL_BLOCK.get(launch.platform, USUAL_BLOCK)
    attention = next((spec for spec in specs if spec.keeps is not Keeps.STATE), None)
    padded = block * attention.token_bytes if attention is not None else 0
    found = []
    for spec in specs:
        if spec.keeps is Keeps.STATE:
            span = block if launch.aligned_states else launch.max_model_len
            found.append(Page(spec, span, max(spec.state_bytes, padded)))
            continue
        tokens = spec.own_block or block
        if spec.keeps is Keeps.SLIDING and not spec.own_block:
            tokens = max(kernel, block // kernel * kernel)
        found.append(Page(spec, tokens, spec.page_bytes(tokens)))
    return merged(found)


def _request_blocks(page: Page, length: int, launch: CacheLaunch) -> int:
    spec, block = page.spec, page.block_tokens
    if spec.keeps is Keeps.STATE:
        checkpoints = spec.checkpoints if launch.version >= (0, 31) else 0
        return launch.speculative_tokens + (2 + checkpoints if launch.aligned_states else 1)
    if spec.role == "cross":
        return -(-spec.window // block)
    if spec.keeps is Keeps.SLIDING:
        return -(-min(spec.window - 1 + launch.tokens_in_flight, length) // block) + 1
    if spec.keeps is Keeps.CHUNKED:
        return -(-min(spec.window + launch.tokens_in_flight, length) // block)
    own = -(-length // launch.decode_context_parallel)
    return -(-own // block)
