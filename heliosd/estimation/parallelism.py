"""Over how many devices a model can be divided, and how: tensor x pipeline x data x expert, and each device's bytes.

The rules are the engine's: heads divide by the tensor ranks, KV heads divide or are repeated, feed-forwards and padded
vocabularies divide, fp8 tiles stay whole, every stage has a layer. Each refusal says its numbers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from heliosd.errors import BadRequest
from heliosd.estimation.account import DeviceAccount, account, rotary_tables
from heliosd.estimation.dimensions import Dimensions
from heliosd.estimation.launch import Launch
from heliosd.estimation.layout import Layout, Split, Tensor
from heliosd.estimation.model import Model
from heliosd.estimation.resolve import resolve
from heliosd.estimation.weights import DTYPE_BYTES, WeightShare, padded_vocabulary, weight_shares

MOST_DEVICES = 4096


@dataclass(frozen=True, slots=True)
class Parallel:
    """Sizes of the groups; devices are their product."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    expert: bool = False
    """Whole experts are dealt out over the tensor and data ranks, instead of each being divided over them."""

    @property
    def devices(self) -> int:
        return self.tensor * self.pipeline * self.data

    def launched(self, launch: Launch) -> Launch:
        """The launch, divided so."""
        return replace(
            launch,
            tensor_parallel=self.tensor,
            pipeline_parallel=self.pipeline,
            data_parallel=self.data,
            expert_parallel=self.expert,
        )

    def __str__(self) -> str:
        parts = (("TP", self.tensor), ("PP", self.pipeline), ("DP", self.data))
        named = [f"{name}{size}" for name, size in parts if size > 1] + (["EP"] if self.expert else [])
        return " ".join(named) or "one device"


@dataclass(frozen=True, slots=True)
class Refused:
    """A division that the engine, or the cards' links, would not make."""

    parallel: Parallel
    reason: str


def layouts(model: Model, devices: int, *, link_group: int = 0) -> tuple[Parallel, ...]:
    """Divisions over exactly `devices` that are possible: most tensor ranks first, then stages, replicas last.

    `link_group`: cards that a fast link joins, within which tensor parallelism stays; 0: not known, or none anywhere.
    """
    return tuple(each for each in divisions(model, devices) if why_not(model, each, link_group=link_group) is None)


def refused(model: Model, devices: int, *, link_group: int = 0) -> tuple[Refused, ...]:
    """The other divisions, with the reason of each."""
    found = ((each, why_not(model, each, link_group=link_group)) for each in divisions(model, devices))
    return tuple(Refused(each, reason) for each, reason in found if reason is not None)


def divisions(model: Model, devices: int) -> Iterator[Parallel]:
    """All factorizations of `devices`, possible or not; with and without expert parallelism where there are experts.

    Raises BadRequest for no device, and for more than any cluster has.
    """
    if not 1 <= devices <= MOST_DEVICES:
        raise BadRequest(
            f"cannot divide a model over {devices} devices: ask for 1 to {MOST_DEVICES}",
            code="bad_devices",
            param="devices",
        )
    factors = [each for each in range(1, devices + 1) if devices % each == 0]
    for data in factors:
        for tensor in reversed(factors):
            if devices % (data * tensor):
                continue
            pipeline = devices // (data * tensor)
            yield Parallel(tensor, pipeline, data)
            if model.sizes.experts and data * tensor > 1:
                yield Parallel(tensor, pipeline, data, expert=True)


def why_not(model: Model, parallel: Parallel, *, link_group: int = 0) -> str | None:
    """Why the engine would not start so; None when it would."""
    sizes, ranks = model.sizes, parallel.tensor
    if link_group and ranks > link_group:
        return f"cannot keep {ranks} tensor ranks within the {link_group} cards that a fast link joins"
    if sizes.layers and parallel.pipeline > sizes.layers:
        return f"cannot give each of {parallel.pipeline} stages one of {sizes.layers} layers"
    if parallel.expert and not sizes.experts:
        return "cannot deal out experts: the model has none"
    if ranks > 1:
        reason = _heads(sizes, ranks) or _widths(model, ranks) or _states(model, ranks)
        if reason is not None:
            return reason
    return _experts(model, parallel)


def _heads(sizes: Dimensions, ranks: int) -> str | None:
    if sizes.heads % ranks:
        return f"cannot divide {sizes.heads} attention heads over {ranks} tensor ranks"
    if sizes.latent or not sizes.kv_heads:
        return None
    if sizes.kv_heads % ranks and ranks % sizes.kv_heads:
        return f"cannot divide or repeat {sizes.kv_heads} KV heads over {ranks} tensor ranks"
    return None


def _widths(model: Model, ranks: int) -> str | None:
    sizes = model.sizes
    if sizes.intermediate % ranks:
        return f"cannot divide a feed-forward of {sizes.intermediate} over {ranks} tensor ranks"
    padded = padded_vocabulary(sizes.vocabulary)
    if padded % ranks:
        return f"cannot divide a vocabulary padded to {padded} over {ranks} tensor ranks"
    scheme = model.quantization.linear
    tile = scheme.block if scheme is not None else 0
    if tile and sizes.intermediate and (sizes.intermediate // ranks) % tile:
        return f"cannot cut tiles of {tile}: {ranks} ranks leave {sizes.intermediate // ranks} of the feed-forward each"
    return None


def _states(model: Model, ranks: int) -> str | None:
    """Heads of linear attention and of Mamba divide too."""
    text = model.fields.language()
    for name in ("linear_num_key_heads", "linear_num_value_heads", "mamba_n_heads", "mamba_num_heads"):
        count = text.explicit(name)
        if isinstance(count, int) and count % ranks:
            return f"cannot divide {count} state heads ({name}) over {ranks} tensor ranks"
    return None


def _experts(model: Model, parallel: Parallel) -> str | None:
    sizes, ranks = model.sizes, parallel.tensor * parallel.data
    if not sizes.experts or ranks == 1:
        return None
    if parallel.expert:
        return f"cannot deal {sizes.experts} experts out to {ranks} ranks" if ranks > sizes.experts else None
    width = sizes.moe_intermediate
    if width % ranks:
        return f"cannot divide experts' {width} over {ranks} ranks; expert parallelism deals them out whole"
    scheme = model.quantization.experts
    tile = scheme.block if scheme is not None else 0
    if tile and (width // ranks) % tile:
        return f"cannot cut tiles of {tile}: {ranks} ranks leave {width // ranks} of an expert each"
    return None


@dataclass(frozen=True, slots=True)
class Rank:
    """One device of a division, and what it holds."""

    data: int
    stage: int
    tensor: int
    account: DeviceAccount


def ranks(model: Model, launch: Launch, parallel: Parallel, kv_bytes: int = 0) -> tuple[Rank, ...]:
    """Every device's account, replica by replica, stage by stage. `kv_bytes`: on each device."""
    stages = account(model, parallel.launched(launch), kv_bytes)
    return tuple(
        Rank(data, stage, tensor, held)
        for data in range(parallel.data)
        for stage, held in enumerate(stages)
        for tensor in range(parallel.tensor)
    )


@dataclass(frozen=True, slots=True)
class Replication:
    """Weights of one replica over all its devices, beyond those of a single device."""

    single_bytes: int
    """On a single device, without the allocator's rounding."""
    whole_bytes: int
    """Tensors that every rank holds whole: norms, routers, latent projections."""
    kv_heads_bytes: int
    """KV heads repeated where there are fewer than ranks."""
    divided_bytes: int
    """What does not divide: rows rounded up, scales of rows and of matrices, a tied embedding on the last stage."""
    tables_bytes: int
    """Tables of rotary angles, one on each device. (Buffers of image features beside them are not counted here.)"""
    rounding_bytes: int
    """By the allocators of all devices."""

    @property
    def total_bytes(self) -> int:
        """What all devices hold together."""
        return (
            self.single_bytes
            + self.whole_bytes
            + self.kv_heads_bytes
            + self.divided_bytes
            + self.tables_bytes
            + self.rounding_bytes
        )


def replication(model: Model, launch: Launch, parallel: Parallel) -> Replication | None:
    """Where the bytes come from that dividing one replica adds; None for an architecture whose tensors are not known.

    Counts the tensors of each way of splitting by themselves, on one device and on all: an account of the sum over
    the ranks, not a difference of two totals.
    """
    if model.layout is None:
        return None
    divided, single = (replace(each, data=1).launched(launch) for each in (parallel, Parallel()))
    alone = {split: _placed(model, single, split) for split in Split}
    added = {split: _placed(model, divided, split) - alone[split] for split in Split}
    tables = _tables_bytes(model, launch)
    rounding = sum(each.rounding_bytes for each in _shares(model, divided, model.layout)) * parallel.tensor
    return Replication(
        single_bytes=sum(alone.values()) + tables,
        whole_bytes=added[Split.WHOLE],
        kv_heads_bytes=added[Split.HEADS],
        divided_bytes=added[Split.ROWS] + added[Split.COLUMNS] + added[Split.VOCABULARY],
        tables_bytes=tables * (parallel.tensor * parallel.pipeline - 1),
        rounding_bytes=rounding,
    )


def _placed(model: Model, launch: Launch, split: Split) -> int:
    """Bytes over all devices of the tensors that are split so."""
    assert model.layout is not None
    layout = _only(model.layout, split)
    if not any(layout.walk()):
        return 0
    each = _shares(model, launch, layout)
    return launch.tensor_parallel * sum(share.total_bytes - share.rounding_bytes - share.tables_bytes for share in each)


def _shares(model: Model, launch: Launch, layout: Layout) -> tuple[WeightShare, ...]:
    resolved = resolve(model, launch)
    tables = rotary_tables(model, launch, resolved.model_len) if layout is model.layout else ()
    return weight_shares(layout, model.quantization, resolved.launch, resolved.dtype, tables)


def _tables_bytes(model: Model, launch: Launch) -> int:
    resolved = resolve(model, launch)
    element = DTYPE_BYTES.get(resolved.dtype, 2)
    return sum(each.size_bytes(element) for each in rotary_tables(model, launch, resolved.model_len))


def _only(layout: Layout, split: Split) -> Layout:
    def those(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(tensor for tensor in tensors if tensor.split is split)

    return replace(
        layout,
        first=those(layout.first),
        blocks=tuple(replace(block, tensors=those(block.tensors)) for block in layout.blocks),
        last=those(layout.last),
        towers=those(layout.towers),
        drafts=those(layout.drafts),
    )
