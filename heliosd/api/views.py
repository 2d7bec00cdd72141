"""Turns what the core and the store know into what crosses the wire. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from heliosd.api.estimate_views import account_view, architecture_of
from heliosd.api.parts import Entry, Identity, Kind, Stored
from heliosd.cluster.member import Member, ready_of
from heliosd.core.exhaustion import Exhaustion
from heliosd.core.hardware import Space
from heliosd.core.lifecycle import State
from heliosd.core.messages import Footprint, Priority
from heliosd.core.snapshot import DeviceAccount, MemoryStatus, ReplicaStatus, ShellsStatus, Snapshot, Waiting
from heliosd.engines.engine import Engine
from heliosd.lease import Judgement
from heliosd.wire import (
    DeviceView,
    EngineKindView,
    EstimateView,
    EventView,
    ExhaustionView,
    FileView,
    FootprintView,
    MemberView,
    MemoryView,
    ModelDetail,
    ModelView,
    NodeView,
    PriorityWord,
    QueueView,
    ReplicaView,
    ShellsView,
    SpaceView,
)

# Of several replicas of a model, the state worth telling is the first of these.
_BEST_FIRST = (State.READY, State.WAKING, State.STARTING, State.FETCHING, State.PLANNED, State.SLEEPING, State.ASLEEP)


def footprint_view(footprint: Footprint) -> FootprintView:
    return FootprintView(
        weights_bytes=footprint.weights_bytes,
        kv_cache_bytes=footprint.kv_cache_bytes,
        overhead_bytes=footprint.overhead_bytes,
        total_bytes=footprint.total_bytes,
    )


def device_view(account: DeviceAccount) -> DeviceView:
    device, reading = account.device, account.reading
    capability = device.compute_capability
    return DeviceView(
        id=device.id,
        kind=device.kind,
        name=device.name,
        capacity_bytes=device.capacity_bytes,
        foreign_bytes=account.foreign_bytes,
        safety_bytes=account.safety_bytes,
        promised_bytes=account.promised.total_bytes,
        measured_bytes=account.measured_bytes,
        free_bytes=account.free_bytes,
        drift_bytes=account.drift_bytes,
        drained=account.drained,
        weights_bytes=account.promised.weights_bytes,
        kv_cache_bytes=account.promised.kv_cache_bytes,
        used_bytes=reading.used_bytes if reading else 0,
        utilization_ratio=reading.utilization_ratio if reading else None,
        temperature_c=reading.temperature_c if reading else None,
        power_w=reading.power_w if reading else None,
        power_limit_w=reading.power_limit_w if reading else None,
        ecc_errors=reading.ecc_errors if reading else None,
        fault=reading.fault if reading else None,
        parent=device.parent,
        compute_capability=f"{capability[0]}.{capability[1]}" if capability else None,
        driver_version=device.driver_version,
        numa_node=device.numa_node,
        pcie=f"gen{device.pcie[0]} x{device.pcie[1]}" if device.pcie else None,
        links={str(other): str(link) for other, link in device.links},
        exhaustion=exhaustion_view(account.exhaustion),
    )


def exhaustion_view(seen: Exhaustion) -> ExhaustionView | None:
    if not seen.in_sight:
        return None
    return ExhaustionView(
        after_s=seen.after_s,
        low_s=seen.low_s,
        high_s=seen.high_s if math.isfinite(seen.high_s) else None,
        basis=seen.basis,
    )


def space_view(space: Space, seen: Exhaustion) -> SpaceView:
    return SpaceView(
        name=space.name,
        used_bytes=space.used_bytes,
        left_bytes=max(0, space.left_bytes),
        exhaustion=exhaustion_view(seen),
    )


def memory_view(memory: MemoryStatus) -> MemoryView:
    return MemoryView(
        pss_bytes=memory.pss_bytes,
        device_bytes=memory.device_bytes,
        host_floor_bytes=memory.host_floor_bytes,
        device_floor_bytes=memory.device_floor_bytes,
        slope_bytes_per_s=memory.slope_bytes_per_s,
        suspected=memory.suspected,
        why=memory.why,
    )


def replica_view(
    replica: ReplicaStatus, engine: Engine | None, log_file: Path | None, *, at: float, now: float
) -> ReplicaView:
    """`at` is the snapshot's time on the node's clock, `now` the same moment in seconds since the epoch."""
    return ReplicaView(
        id=replica.id,
        model=replica.model,
        revision=replica.revision,
        state=replica.state,
        devices=list(replica.devices),
        leases=len(replica.leases),
        predicted=footprint_view(replica.promised),
        measured=footprint_view(replica.measured) if replica.measured else None,
        phases=dict(engine.phases) if engine else {},
        started_at=now - (at - replica.started_at),
        idle_s=0.0 if replica.idle_since is None else max(0.0, at - replica.idle_since),
        keep_alive_s=None if math.isinf(replica.keep_alive_s) else replica.keep_alive_s,
        pinned=replica.pinned,
        sleep_level=replica.level,
        limit=replica.limit,
        kv_used_ratio=replica.kv_used_ratio,
        memory=memory_view(replica.memory) if replica.memory else None,
        max_model_len=engine.max_model_len if engine else None,
        tasks=list(engine.tasks) if engine else [],
        pids=sorted(engine.pids) if engine else [],
        log_file=str(log_file) if log_file else None,
    )


def engine_kind_view(name: str, kind: Kind, shells: ShellsStatus | None) -> EngineKindView:
    return EngineKindView(
        kind=name, version=kind.version, state=kind.state, detail=kind.detail, shells=shells and shells_view(shells)
    )


def shells_view(shells: ShellsStatus) -> ShellsView:
    return ShellsView(
        wanted=shells.wanted,
        waiting=shells.waiting,
        making=shells.making,
        own_bytes=shells.own_bytes,
        why=shells.why,
    )


def member_view(member: Member, models: Iterable[str]) -> MemberView:
    models = sorted(models)
    return MemberView(
        name=member.name,
        state=member.state,
        address=member.address,
        api_url=member.api_url,
        version=member.version or None,
        models=models,
        ready=list(ready_of(member, models)),
        free_bytes=member.load.free_bytes,
        queue_length=member.load.queue_length,
    )


def queue_view(waiting: Waiting, names: Mapping[str, str], *, at: float, now: float) -> QueueView:
    """`names` are those of the keys, by id. `at` and `now` are the same moment, as for `replica_view`."""
    waiting_s = max(0.0, at - waiting.since)
    return QueueView(
        ticket=waiting.ticket,
        model=waiting.model,
        waiting_s=waiting_s,
        reason=waiting.reason,
        position=waiting.position,
        eta_s=waiting.eta_s,
        priority=priority_word(waiting.priority),
        key=names.get(waiting.key, waiting.key) or None,
        since=now - waiting_s,
    )


def priority_word(priority: Priority) -> PriorityWord:
    return cast(PriorityWord, priority.name.lower())


def node_view(
    identity: Identity,
    snapshot: Snapshot,
    *,
    accepting: bool,
    engines: Sequence[EngineKindView],
    warnings: Sequence[str],
    pid: int,
    now: float,
) -> NodeView:
    return NodeView(
        name=identity.name,
        version=identity.version,
        state="draining" if snapshot.draining else "running" if accepting else "starting",
        started_at=identity.started_at,
        uptime_s=max(0.0, now - identity.started_at),
        pid=pid,
        engines=list(engines),
        config_files=list(identity.config_files),
        state_dir=str(identity.state_dir),
        warnings=list(warnings),
    )


def model_view(stored: Stored, replicas: Iterable[ReplicaStatus], tier: str | None = None) -> ModelView:
    return ModelView(**_model_fields(stored, replicas), tier=tier)


def model_detail(
    stored: Stored,
    replicas: Iterable[ReplicaStatus],
    settings: Mapping[str, Any],
    estimate: EstimateView | None,
    tier: str | None = None,
) -> ModelDetail:
    return ModelDetail(
        **_model_fields(stored, replicas),
        tier=tier,
        files=[
            FileView(path=file.path, digest=file.digest, size_bytes=file.size_bytes) for file in stored.manifest.files
        ],
        dtype=stored.profile.dtype,
        kv_bytes_per_token=estimate.kv_bytes_per_token if estimate else None,
        settings=dict(settings),
        estimate=estimate,
    )


def peer_model_view(ref: str, peer: str) -> ModelView:
    """A model that only a peer holds; what else is known of it, the peer knows."""
    return ModelView(ref=ref, revision="", size_bytes=0, source=f"peer {peer}", created_at=0.0, peer=peer)


def estimate_view(judgement: Judgement) -> EstimateView:
    launch, read = judgement.launch, judgement.read
    ranks = judgement.device_count // judgement.pipeline_parallel
    return EstimateView(
        model=judgement.model,
        per_device=footprint_view(judgement.per_device),
        device_count=judgement.device_count,
        max_model_len=judgement.max_model_len,
        kv_tokens=judgement.kv_tokens,
        kv_bytes_per_token=judgement.kv_bytes_per_token,
        verdict=cast(Literal["ready", "fits", "must_wait", "never_fits"], judgement.verdict),
        reason=judgement.reason,
        notes=list(judgement.notes),
        accounts=[
            account_view(each, stage, ranks, launch.device_bytes if launch else None)
            for stage, each in enumerate(judgement.accounts)
        ],
        pipeline_parallel=judgement.pipeline_parallel,
        device=(launch.device_name or None) if launch else None,
        engine_version=".".join(map(str, launch.version)) if launch else None,
        architecture=architecture_of(read) if read else None,
        parameters=read.layout.parameters if read and read.layout else None,
        quantization=read.quantization.name if read else None,
        max_num_seqs=launch.max_num_seqs if launch else None,
    )


def event_view(entry: Entry) -> EventView:
    return EventView(
        id=entry.id,
        at=entry.at,
        kind=entry.kind,
        message=entry.message,
        ticket=entry.ticket,
        model=entry.model,
        replica=entry.replica,
        detail=dict(entry.detail),
    )


def _model_fields(stored: Stored, replicas: Iterable[ReplicaStatus]) -> dict[str, Any]:
    served = stored.adapter.base if stored.adapter else stored.ref
    states = {replica.state for replica in replicas if replica.model == str(served)}
    return {
        "ref": str(stored.ref),
        "revision": stored.revision,
        "size_bytes": stored.manifest.size_bytes,
        "source": stored.source,
        "created_at": stored.created_at,
        "aliases": list(stored.aliases),
        "state": next((state for state in _BEST_FIRST if state in states), "stored"),
        "architecture": stored.profile.architecture,
        "parameters": stored.profile.parameters,
        "max_model_len": stored.profile.max_model_len,
        "base": str(stored.adapter.base) if stored.adapter else None,
        "adapter_rank": stored.adapter.rank if stored.adapter else None,
    }
