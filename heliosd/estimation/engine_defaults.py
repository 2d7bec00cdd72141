"""The engine's own defaults that decide memory, by release: batch, captures, share of the card, how it keeps its books.

Read in the sources of the releases named in each step's `source` (0.2.7 to 0.32.0; paths are relative to the package);
a step holds from the first release in which it was seen. Between releases that were read (every minor one from 0.5 on)
a change may be one patch earlier than noted.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from heliosd.core.units import GiB
from heliosd.estimation.engine_captures import captures
from heliosd.estimation.engine_cards import Card, card
from heliosd.estimation.engine_sampler import SamplerPath, sampler_path
from heliosd.estimation.launch import Launch, Platform, Version

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step(Generic[T]):
    """A value that holds from `since` on."""

    since: Version
    value: T
    source: str


def at(steps: tuple[Step[T], ...], version: Version) -> Step[T]:
    """The step in force at `version`; the first one for anything older."""
    for step in reversed(steps):
        if step.since <= version:
            return step
    return steps[0]


class Printed(StrEnum):
    """What "GPU KV cache size: N tokens" counts."""

    BLOCKS = "blocks"
    """Blocks, divided by the groups of a hybrid model, times the smallest block size, times context-parallel ranks."""
    CONCURRENCY = "concurrency"
    """Maximum concurrency times the model's length."""


class Books(StrEnum):
    """How the log splits what is not KV cache."""

    TORCH_PEAK = "torch_peak"
    """Until 0.6.3 one number: what was free at the start less what is free after the run."""
    SPLIT = "split"
    """Weights (growth while loading), activation (torch's peak less what was allocated before the run, so workspaces
    that stay are in it), non-torch (growth of what torch did not reserve, since before NCCL was set up)."""
    SPLIT_AFTER_NCCL = "split_after_nccl"
    """The same, measured since after NCCL and the collectives' buffers were set up."""
    CONSUMED = "consumed"
    """Weights, non-torch and everything that stays are one number; activation is torch's peak less what stays, with the
    applied estimate of graphs added when it is printed."""


UTILIZATION = (
    Step((0, 2, 0), 0.90, "0.2.7 engine/arg_utils.py"),
    Step((0, 20, 0), 0.92, "0.20.0 config/cache.py, entrypoints/llm.py (0.19.1: 0.9)"),
)
PRINTED = (
    Step((0, 2, 0), Printed.BLOCKS, "0.8.0 v1/core/kv_cache_utils.py; 0.20.0 still"),
    Step((0, 20, 1), Printed.CONCURRENCY, "0.20.1 v1/core/kv_cache_utils.py _report_kv_cache_config"),
)
BOOKS_V1 = (
    Step((0, 2, 0), Books.SPLIT, "0.7.1 v1/worker/gpu_worker.py; printed from 0.10.2 on"),
    Step((0, 11, 0), Books.SPLIT_AFTER_NCCL, "0.11.0 v1/worker/gpu_worker.py init_device"),
    Step((0, 27, 0), Books.CONSUMED, "0.27.1 utils/mem_utils.py, v1/worker/gpu_worker.py (0.26.0: split)"),
)
BOOKS_V0 = (
    Step((0, 2, 0), Books.TORCH_PEAK, "0.4.1 to 0.6.3 worker/worker.py"),
    Step((0, 6, 4), Books.SPLIT, "0.6.4.post1 worker/worker.py, 0.6.5 utils.py memory_profiling"),
)
GRAPHS_SUBTRACTED = (
    Step((0, 2, 0), False, "0.18.1 envs.py: estimated, flag VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS off"),
    Step((0, 20, 0), True, "0.20.0 envs.py: on; off ROCm until 0.26.0; second runner estimates from 0.29.0 on"),
)
CHUNK_V0 = (
    Step((0, 2, 0), 768, "0.4.1 config.py"),
    Step((0, 5, 0), 512, "0.5.0 config.py"),
    Step((0, 6, 5), 2048, "0.6.5 config.py (0.6.4.post1: 512)"),
)
MULTIMODAL_V0 = (
    Step((0, 2, 0), 0, "0.5.5 config.py"),
    Step((0, 6, 0), 4096, "0.6.0 config.py"),
    Step((0, 6, 3), 5120, "0.6.3.post1 config.py (0.6.2: 4096)"),
)
FULL_GRAPHS = (
    Step((0, 2, 0), False, "0.8.0 to 0.10.2 config: piecewise"),
    Step((0, 11, 0), True, "0.11.0 config/__init__.py: FULL_AND_PIECEWISE, piecewise for pooling and encoder-decoder"),
)
POOLING_V0_TOKENS = 32768
"""0.5.0 to 0.11.0 config: embedding models get at least as many (V0)."""
LONG_CONTEXT = 32768
"""0.5.3.post1 on, V0: beyond it prefill is chunked unless something forbids it."""

RUNNER2_ALWAYS: Version = (0, 29, 0)
"""0.29.0 config/vllm.py: the second runner for everything it supports; on ROCm a few DeepSeek and GLM until 0.31."""
_RUNNER2 = (
    Step((0, 22, 0), frozenset({"Qwen3ForCausalLM"}), "0.22.0 config/vllm.py"),
    Step(
        (0, 23, 0),
        frozenset({"LlamaForCausalLM", "MistralForCausalLM", "Qwen3ForCausalLM"}),
        "0.23.0 config/vllm.py",
    ),
    Step(
        (0, 24, 0),
        frozenset({"LlamaForCausalLM", "MistralForCausalLM", "Qwen3ForCausalLM", "DeepseekV2ForCausalLM",
                   "Qwen2MoeForCausalLM", "GraniteMoeForCausalLM"}),
        "0.24.0 config/vllm.py",
    ),
    Step(
        (0, 25, 0),
        frozenset({"DeepseekV2ForCausalLM", "Qwen2MoeForCausalLM", "GraniteMoeForCausalLM"}),
        "0.25.1 config/vllm.py: these, and all that are neither experts' nor hybrid",
    ),
    Step(
        (0, 26, 0),
        frozenset({"DeepseekV2ForCausalLM", "Qwen2MoeForCausalLM", "GraniteMoeForCausalLM", "InklingForCausalLM",
                   "InklingForConditionalGeneration", "LongcatFlashNgramForCausalLM"}),
        "0.26.0 config/vllm.py",
    ),
    Step(
        (0, 28, 0),
        frozenset({"DeepseekV2ForCausalLM", "DeepseekV4ForCausalLM", "Qwen2MoeForCausalLM", "GraniteMoeForCausalLM",
                   "InklingForCausalLM", "InklingForConditionalGeneration", "KimiK3ForConditionalGeneration",
                   "LongcatFlashNgramForCausalLM"}),
        "0.28.0 config/vllm.py (Kimi-K3 in 0.27.1)",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Facts:
    """What the defaults ask of the model."""

    model_len: int = 8192
    """As served: the launch's length, else the configuration's."""
    architecture: str = ""
    multimodal: bool = False
    pooling: bool = False
    causal: bool = True
    """Pooling models only: the last token's state of a causal decoder, so prefill may be chunked."""
    encoder_decoder: bool = False
    mla: bool = False
    sliding_window: bool = False
    experts: bool = False
    quantized: bool = False
    hybrid: bool = False
    """Has Mamba-like state."""
    prefix_item_tokens: int = 0
    """Tokens of the largest image or sound, where the model reads them without causal order (0.22 on)."""


@dataclass(frozen=True, slots=True)
class EngineDefaults:
    """A launch resolved: what the operator said, else the release's own choice."""

    max_num_seqs: int
    max_num_batched_tokens: int
    chunked_prefill: bool
    gpu_memory_utilization: float
    block_size: int
    """Of attention layers; hybrid models raise it further."""
    capture_sizes: tuple[int, ...]
    """Ascending; empty when eager."""
    full_graphs: int
    """How many of them are captured a second time as a whole decoding step."""
    graphs_subtracted: bool
    printed: Printed
    books: Books
    sampler: SamplerPath
    runner2: bool
    sources: tuple[str, ...]

    @property
    def largest_capture(self) -> int:
        return self.capture_sizes[-1] if self.capture_sizes else 0


def engine_defaults(launch: Launch, facts: Facts) -> EngineDefaults:
    """What an engine of `launch.version` would choose for `facts` on `launch`'s device."""
    version, v0 = launch.version, launch.v0
    on = card(launch.device_name, launch.device_bytes, launch.platform)
    chunked = launch.chunked_prefill if launch.chunked_prefill is not None else chunks_prefill(launch, facts, on)
    tokens, seqs, source = batch(launch, facts, on, chunked=chunked)
    sizes = () if launch.enforce_eager or on.platform is Platform.CPU else captures(launch, on, seqs, tokens)
    runner2 = launch.model_runner_v2 if launch.model_runner_v2 is not None else uses_runner2(version, facts, v0=v0)
    subtracted = at(GRAPHS_SUBTRACTED, version)
    counts = subtracted.value and bool(sizes) and not v0
    counts = counts and (on.platform is not Platform.ROCM or version >= (0, 26, 0))
    books = at(BOOKS_V0 if v0 else BOOKS_V1, version)
    printed = at(PRINTED, version)
    full = at(FULL_GRAPHS, version)
    width = seqs * (1 + launch.speculative_tokens)
    decodes = full.value and not (v0 or facts.pooling or facts.encoder_decoder)
    used = (at(UTILIZATION, version), printed, books, subtracted, full)
    return EngineDefaults(
        max_num_seqs=seqs,
        max_num_batched_tokens=tokens,
        chunked_prefill=chunked,
        gpu_memory_utilization=at(UTILIZATION, version).value,
        block_size=launch.block_size or _block_size(version, facts, on),
        capture_sizes=sizes,
        full_graphs=sum(1 for size in sizes if size <= width) if decodes else 0,
        graphs_subtracted=counts and (not runner2 or version >= (0, 29, 0)),
        printed=printed.value,
        books=books.value,
        sampler=SamplerPath.NONE if facts.pooling else sampler_path(version, seqs, on, v0=v0, runner2=runner2),
        runner2=runner2,
        sources=(source, *(step.source for step in used)),
    )


def chunks_prefill(launch: Launch, facts: Facts, on: Card) -> bool:
    """V1 always does for text; V0 where the context is long and nothing forbids it.

    Source: engine/arg_utils.py of 0.5.3.post1, 0.6.1.post2, 0.6.3.post1, 0.6.5 and 0.8.0; V1: 0.9.2 and 0.12.0.
    """
    if not launch.v0:
        return not facts.encoder_decoder if not facts.pooling else facts.causal
    version = launch.version
    forbidden = (
        facts.sliding_window
        or launch.speculative_tokens > 0
        or launch.max_loras > 0
        or (facts.hybrid and version < (0, 6, 3))
        or (launch.prefix_caching is True and version < (0, 6, 1))
        or (facts.multimodal and version >= (0, 6, 1))
        or (facts.pooling and version >= (0, 6, 5))
        or (facts.mla and version >= (0, 8, 0))
        or on.platform is Platform.CPU
        or (on.platform is Platform.ROCM and version >= (0, 6, 5))
    )
    return version >= (0, 5, 3) and facts.model_len > LONG_CONTEXT and not forbidden


def batch(launch: Launch, facts: Facts, on: Card, *, chunked: bool) -> tuple[int, int, str]:
    """(max_num_batched_tokens, max_num_seqs, where it was read); what the launch says is kept."""
    tokens, seqs, source = _batch_v0(launch, facts, chunked) if launch.v0 else _batch_v1(launch, facts, on, chunked)
    asked = launch.max_num_seqs
    said = launch.max_num_batched_tokens
    if said is None and ((launch.v0 and launch.version >= (0, 9, 0)) or launch.version >= (0, 11, 1)):
        # Whisper's positions end with its length: one sequence cannot fill a step.
        tokens = min(tokens, (asked or seqs) * facts.model_len)
    tokens = said or tokens
    if asked is None and not launch.v0 and launch.version >= (0, 10, 1):
        seqs = min(seqs, tokens)
    return tokens, asked or seqs, source


def _batch_v0(launch: Launch, facts: Facts, chunked: bool) -> tuple[int, int, str]:
    chunk = at(CHUNK_V0, launch.version)
    tokens = chunk.value if chunked else max(facts.model_len, 2048)
    if facts.pooling and launch.version >= (0, 5, 0):
        tokens = max(tokens, POOLING_V0_TOKENS)
    if facts.multimodal:
        tokens = max(tokens, at(MULTIMODAL_V0, launch.version).value)
    return tokens, 256, chunk.source


def _batch_v1(launch: Launch, facts: Facts, on: Card, chunked: bool) -> tuple[int, int, str]:
    version = launch.version
    tokens, seqs, source = _by_card(version, on, launch.offline, launch.world_size)
    if chunked:
        if facts.multimodal and version >= (0, 22, 0):
            tokens = max(tokens, facts.prefix_item_tokens)
        return tokens, seqs, source
    if version >= (0, 11, 1):
        return max(tokens, facts.model_len), seqs, source
    return (facts.model_len if facts.pooling and version >= (0, 9, 2) else tokens), seqs, source


def _by_card(version: Version, on: Card, offline: bool, world: int) -> tuple[int, int, str]:
    if on.platform is Platform.CPU:
        ranks = world if version >= (0, 10, 0) else 1
        seqs = (256 if offline else 128) if version >= (0, 10, 0) else (128 if offline else 32)
        return (4096 if offline else 2048) * ranks, seqs * ranks, "0.9.2, 0.10.0 engine/arg_utils.py"
    if version >= (0, 28, 0) and on.total_bytes >= 160 * GiB:
        return 16384, 1024, "0.28.0 engine/arg_utils.py get_batch_defaults: 160 GiB and more"
    large, source = _is_large(version, on)
    if large:
        return (16384 if offline else 8192), 1024, source
    return (8192 if offline else 2048), (256 if version >= (0, 8, 4) else 1024), source


def _is_large(version: Version, on: Card) -> tuple[bool, str]:
    name = on.name.lower()
    if version >= (0, 9, 0):
        large = on.total_bytes >= 70 * GiB and "a100" not in name
        return large, "0.9.0.1 to 0.32.0 engine/arg_utils.py: 70 GiB and more, no A100"
    if version >= (0, 8, 5):
        return on.total_bytes >= 70 * GiB, "0.8.5 engine/arg_utils.py: 70 GiB and more"
    if version >= (0, 7, 0):
        return "h100" in name or "h200" in name, "0.7.1 to 0.8.4 engine/arg_utils.py: by name"
    return False, "0.6.5, 0.6.6.post1 engine/arg_utils.py"


def uses_runner2(version: Version, facts: Facts, *, v0: bool = False) -> bool:
    """The second model runner by default; features it lacks (some drafts, custom processors) are not asked here."""
    if v0 or version < (0, 22, 0):
        return False
    if version >= RUNNER2_ALWAYS:
        return True
    if facts.pooling:
        return False
    named = facts.architecture in at(_RUNNER2, version).value
    if version < (0, 24, 0):
        return named and not facts.experts and not facts.quantized
    if version < (0, 25, 0):
        return named
    return named or not (facts.experts or facts.hybrid)


def _block_size(version: Version, facts: Facts, on: Card) -> int:
    """16 tokens; MLA's kernels want more; the CPU's 128 (0.11 on). Source: platforms/cuda.py, platforms/cpu.py."""
    if on.platform is Platform.CPU:
        return 128 if version >= (0, 11, 0) and not facts.mla else 16
    if not facts.mla or on.platform is not Platform.CUDA or version < (0, 8, 0):
        return 16
    if on.data_centre_blackwell:
        return 128 if (0, 10, 1) <= version < (0, 15, 0) else 64
    return 64 if on.capability is not None and on.capability[0] == 9 else 16
