"""The whole account of one device: weights, KV cache, activation peak, CUDA graphs, non-torch, each with its interval.

    model = read_model(config)
    accounts = account(model, Launch(tensor_parallel=2, device_bytes=80 * GiB), kv_bytes=20 * GiB)

One account for each pipeline stage; the ranks of a stage are alike. Pure arithmetic: well under a millisecond.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, hypot

from heliosd.core.units import MiB, format_bytes
from heliosd.errors import BadRequest
from heliosd.estimation.activations import ActivationPeak, activation_peak
from heliosd.estimation.constants import ROCM_BYTES, Era, Measured, era
from heliosd.estimation.graphs import graph_bytes
from heliosd.estimation.launch import Launch, Platform
from heliosd.estimation.model import Model
from heliosd.estimation.resolve import Resolved, resolve
from heliosd.estimation.stored_tensors import StoredWeights
from heliosd.estimation.weights import Rotary, WeightShare, adapter_room, weight_shares


@dataclass(frozen=True, slots=True)
class Term:
    """One number of an account."""

    likely_bytes: int
    low_bytes: int
    high_bytes: int
    why: str
    """The formula with its numbers, and where they come from."""


@dataclass(frozen=True, slots=True)
class DeviceAccount:
    """What one device holds when the engine is ready."""

    weights: Term
    kv_cache: Term
    activation: Term
    graphs: Term
    non_torch: Term
    context: Term
    """What the process holds before the engine counts anything: the CUDA context, and NCCL of several ranks. No log has
    it in a sum; a device has it in its use."""

    @property
    def terms(self) -> tuple[tuple[str, Term], ...]:
        return (
            ("weights", self.weights),
            ("kv_cache", self.kv_cache),
            ("activation", self.activation),
            ("graphs", self.graphs),
            ("non_torch", self.non_torch),
            ("context", self.context),
        )

    @property
    def fixed_bytes(self) -> int:
        """Everything but the KV cache, as likely."""
        return sum(term.likely_bytes for name, term in self.terms if name != "kv_cache")

    @property
    def total_bytes(self) -> int:
        return self.fixed_bytes + self.kv_cache.likely_bytes

    @property
    def margin_bytes(self) -> int:
        """How far the total may lie above: the terms' upper deviations are independent, so their squares add."""
        return ceil(hypot(*(term.high_bytes - term.likely_bytes for _, term in self.terms)))

    @property
    def booked_bytes(self) -> int:
        """What a ledger sets aside, so that hardly any start takes more."""
        return self.total_bytes + self.margin_bytes


def account(
    model: Model,
    launch: Launch,
    kv_bytes: int = 0,
    stored: StoredWeights | None = None,
    measured: Measured | None = None,
    resolved: Resolved | None = None,
    weights: Sequence[Term] | None = None,
) -> tuple[DeviceAccount, ...]:
    """The account of a device of each pipeline stage, first to last.

    `kv_bytes`: of one device, as given to the engine. `stored`: what the files' headers say, when they were read.
    `measured`: constants instead of those we ship. `resolved`: of this model and launch, where the caller has it.
    `weights`: the stages' terms of an account that differs in nothing that decides them (`trials` knows what does).
    """
    resolved = resolved or resolve(model, launch)
    chosen = era(launch.version, v0=launch.v0)
    peak = activation_peak(model, resolved, chosen)
    weights = _weights(model, resolved, stored) if weights is None else weights
    kv = Term(kv_bytes, kv_bytes, kv_bytes, "given to the engine, exact")
    constants = measured or chosen.measured
    graphs = _graphs(model, resolved, chosen, constants)
    outside, context = _non_torch(resolved, chosen, constants), _context(resolved)
    count = len(weights)
    return tuple(
        DeviceAccount(term, kv, _activation(peak, last=index == count - 1), graphs, outside, context)
        for index, term in enumerate(weights)
    )


def rotary_tables(model: Model, launch: Launch, length: int) -> tuple[Rotary, ...]:
    """Tables of angles for as many positions as the model knows, which the engine makes once a device.

    Models that place images in three dimensions get four times as many positions (from 0.7 on), linearly scaled ones
    their factor; models with other angles for layers with a window get a second, unscaled table.
    """
    sizes = model.sizes
    if not sizes.rotary_dimensions:
        return ()
    positions = sizes.positions or length
    several = 4 if sizes.rotary_sections and launch.version >= (0, 7, 0) else 1
    tables: tuple[Rotary, ...] = (Rotary(round(positions * several * sizes.rotary_stretch), sizes.rotary_dimensions),)
    return (*tables, Rotary(positions, sizes.rotary_dimensions)) if sizes.rotary_local else tables


def _weights(model: Model, resolved: Resolved, stored: StoredWeights | None) -> list[Term]:
    launch, dtype = resolved.launch, resolved.dtype
    tables = rotary_tables(model, launch, resolved.model_len)
    if model.sizes.deepstack_levels:
        tables += (Rotary(resolved.defaults.max_num_batched_tokens, model.sizes.hidden),) * model.sizes.deepstack_levels
    if stored is not None:
        sizes = stored.per_stage(launch, model, dtype, tables)
        read = f"from the headers of {stored.files} files: {stored.tensors} tensors"
        if not launch.max_loras:
            return [_exact(size, read) for size in sizes]
        rooms = adapter_room(model.layout, launch, dtype) if model.layout else stored.adapter_room(launch, dtype)
        return [
            _exact(size + room, f"{read}, and {format_bytes(room)} of room for adapters")
            for size, room in zip(sizes, rooms, strict=True)
        ]
    if model.layout is None:
        likely = _by_name(model)
        return [
            Term(likely, likely // 2, likely * 2, "no family knows this architecture and no headers were read: a guess")
        ] * launch.pipeline_parallel
    shares = weight_shares(model.layout, model.quantization, launch, dtype, tables)
    return [_described(model, share, launch) for share in shares]


MOST_BYTES = 2**60
"""Of one device's weights; sizes that are sensible each by itself may multiply to more than a float can tell."""


def _exact(size: int, why: str) -> Term:
    return Term(size, size - size // 400, size + size // 200 + 8 * MiB, why)


def _described(model: Model, share: WeightShare, launch: Launch) -> Term:
    layout = model.layout
    assert layout is not None
    size = share.total_bytes
    if size > MOST_BYTES:
        raise BadRequest(
            "cannot read the configuration: its sizes multiply to more bytes than all devices have", code="bad_config"
        )
    spread = 0.005 + 0.03 * len(layout.guessed) + (0.06 if model.quantization.vague else 0)
    if model.quantization.linear or model.quantization.experts:
        spread += 0.01
    parts = ", ".join(
        f"{name} {format_bytes(value)}"
        for name, value in (
            ("embeddings", share.embeddings_bytes),
            ("layers", share.layers_bytes),
            ("experts", share.experts_bytes),
            ("head", share.head_bytes),
            ("towers", share.towers_bytes),
            ("drafts", share.drafts_bytes),
            ("rotary tables", share.tables_bytes),
            ("derived copies", share.copies_bytes),
            ("allocator", share.rounding_bytes),
        )
        if value
    )
    ranks = f" over {launch.tensor_parallel} ranks" if launch.tensor_parallel > 1 else ""
    why = f"{layout.parameters:,} parameters of {model.fields.model_type}{ranks}, {model.quantization.name}: {parts}"
    return Term(size, round(size * (1 - spread)), round(size * (1 + spread)), why)


def _by_name(model: Model) -> int:
    """Twelve squares of the hidden size for each layer and two embeddings: what a plain decoder would have."""
    sizes = model.sizes
    layers, hidden = sizes.layers or 32, sizes.hidden or 4096
    return 2 * (12 * layers * hidden * hidden + 2 * hidden * (sizes.vocabulary or 152_064))


def _activation(peak: ActivationPeak, *, last: bool) -> Term:
    size = peak.total_bytes if last else min(peak.total_bytes, peak.layer_bytes + peak.lasting_bytes)
    doubt = round(0.03 * size) + round(0.3 * peak.lasting_bytes)
    return Term(size, max(0, size - doubt), size + doubt, peak.why)


def _graphs(model: Model, resolved: Resolved, chosen: Era, constants: Measured) -> Term:
    sizes = resolved.defaults.capture_sizes
    size = graph_bytes(model, resolved.launch, chosen, len(sizes), constants)
    if not size:
        return Term(0, 0, 0, "eager: nothing is captured")
    why = f"{model.sizes.layers} layers at {len(sizes)} batch sizes up to {sizes[-1]}, engines from {chosen.name}"
    return Term(size, round(size * 0.6), round(size * 1.4), why)


HOST_PROCESS_BYTES = 480 * MiB
"""An engine process on the CPU, forked from the zygote: heap, stacks, half of the pages it shares. Measured with
SmolLM2 on two cores: 445 MiB when ready, 473 MiB after a request of 1000 tokens."""


def _non_torch(resolved: Resolved, chosen: Era, constants: Measured) -> Term:
    launch, on = resolved.launch, resolved.card
    if launch.platform is Platform.CPU:
        return Term(
            HOST_PROCESS_BYTES, HOST_PROCESS_BYTES * 17 // 20, HOST_PROCESS_BYTES * 11 // 10, "the engine's own process"
        )
    if launch.world_size > 1:
        size, doubt = constants.together_bytes, constants.together_doubt_bytes
        why = f"NCCL and all-reduce buffers of {launch.world_size} ranks"
    else:
        recent = on.capability is None or on.capability >= (9, 0)
        size, doubt = (constants.alone_bytes if recent else constants.alone_older_bytes), constants.alone_doubt_bytes
        if on.platform is Platform.ROCM:
            size = ROCM_BYTES
        why = "libraries of a single rank"
    return Term(size, max(0, size - doubt), size + doubt, f"{why}, engines from {chosen.name}: {constants.rows} starts")


CONTEXT_BYTES = 520 * MiB
CONTEXT_SMALL_BYTES = 280 * MiB
NCCL_BYTES = 1300 * MiB
"""From `free/total on startup` in logs of 0.10 to 0.31: H100, H200 and A100 hold 0.49 to 0.51 GiB, L4 and A6000 0.25 to
0.28; H100s of several ranks 1.53 to 2.07, as NCCL is set up before that line is printed (from 0.11 on)."""


def _context(resolved: Resolved) -> Term:
    launch, on = resolved.launch, resolved.card
    if launch.platform is Platform.CPU:
        return Term(0, 0, 0, "a process on the CPU has none")
    large = on.capability is None or on.capability[1] == 0
    size = CONTEXT_BYTES if large else CONTEXT_SMALL_BYTES
    if launch.world_size == 1 or launch.version < (0, 11, 0):
        return Term(size, size // 2, size + 64 * MiB, "CUDA context")
    size += NCCL_BYTES
    return Term(size, size // 2, size + 300 * MiB, f"CUDA context, and NCCL of {launch.world_size} ranks")


def widest(accounts: Sequence[DeviceAccount]) -> DeviceAccount:
    """The stage that needs most: what decides whether a placement fits."""
    return max(accounts, key=lambda each: each.booked_bytes)
