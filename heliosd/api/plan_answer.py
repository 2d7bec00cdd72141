"""What if these models were to share those devices: where each would lie, with how much KV cache. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from heliosd.api.estimate_plan import Subject, fitted
from heliosd.api.estimate_target import Target
from heliosd.core.names import DeviceId
from heliosd.core.packing import Item, Packing, Room, pack
from heliosd.core.units import format_bytes
from heliosd.errors import BadRequest
from heliosd.estimation.fit import Fit, requests_in, room_of
from heliosd.wire import EstimateRequest, LeftView, PlacedView, PlanDeviceView, PlanModel, PlanRequest, PlanView

RANKS = (1, 2, 4, 8, 16)
"""Tried in this order where nobody says over how many devices a model is divided."""


@dataclass(frozen=True, slots=True)
class PlanDevice:
    name: str
    target: Target

    @property
    def room_bytes(self) -> int:
        return room_of(self.target.device_bytes)

    @property
    def kind(self) -> str:
        """Devices of one kind take the same bytes of every model."""
        return f"{self.target.gpu.device_name}|{self.target.device_bytes}"


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One replica to be placed, and its account on each kind of device that could hold it alone."""

    name: str
    asked: PlanModel
    fits: dict[str, Fit]
    device_count: int
    reason: str
    """Why there is no such kind."""
    stages: int = 1
    """Of a pipeline, among which the devices are dealt out."""

    def item(self) -> Item:
        return Item(
            self.name,
            {kind: fit.needed_bytes for kind, fit in self.fits.items()},
            self.asked.worth,
            self.device_count,
        )


def plan_answer(asked: PlanRequest, subjects: Sequence[Subject], devices: Sequence[PlanDevice]) -> PlanView:
    """`subjects`: the models of `asked.models`, in their order. Raises BadRequest naming the entry."""
    candidates: dict[str, _Candidate] = {}
    for at, (model, subject) in enumerate(zip(asked.models, subjects, strict=True)):
        try:
            found = _candidate(model, subject, devices)
        except BadRequest as error:
            param = f"models.{at}.{error.param}" if error.param else f"models.{at}"
            raise BadRequest(error.message, code=error.code, param=param) from error
        for replica in range(model.replicas):
            name = _unused(f"{found.name} #{replica + 1}" if model.replicas > 1 else found.name, candidates)
            candidates[name] = replace(found, name=name)
    rooms = [Room(DeviceId(each.name), each.room_bytes, each.kind) for each in devices]
    packing = pack((each.item() for each in candidates.values()), rooms)
    return _view(candidates, packing, devices)


def _candidate(model: PlanModel, subject: Subject, devices: Sequence[PlanDevice]) -> _Candidate:
    kinds = {each.kind: each.target for each in devices}
    counts = {kind: sum(1 for each in devices if each.kind == kind) for kind in kinds}
    reason = "there is no device"
    asked = bool(model.tensor_parallel or model.pipeline_parallel)
    started = 0
    """The last number of devices over which an engine would divide it."""
    for ranks, stages in _divisions(model):
        count = ranks * stages
        if count == started:
            continue  # fewer ranks in more stages need no less of each device
        fits: dict[str, Fit] = {}
        for kind, target in kinds.items():
            if counts[kind] < count:
                reason = f"needs {count} equal devices" if asked else reason
                continue
            try:
                fit = fitted(_estimate_request(model, ranks, stages), subject, target)
            except BadRequest:
                if asked or count == 1:
                    raise
                continue  # so many ranks cannot share its heads: more or fewer may
            started = count
            if fit.fits:
                fits[kind] = fit
            else:
                reason = f"{count} x {target.name}: {fit.verdict}" if count > 1 else f"{target.name}: {fit.verdict}"
        if fits:
            return _Candidate(subject.name, model, fits, count, "", stages)
    return _Candidate(subject.name, model, {}, 1, reason)


def _divisions(model: PlanModel) -> Iterator[tuple[int, int]]:
    """(ranks, stages) in the order in which they are tried: few devices first, of as many the most ranks."""
    if model.tensor_parallel or model.pipeline_parallel:
        yield model.tensor_parallel or 1, model.pipeline_parallel or 1
        return
    for count in RANKS:
        ranks = count
        while ranks:
            yield ranks, count // ranks
            ranks //= 2


def _estimate_request(model: PlanModel, ranks: int, stages: int) -> EstimateRequest:
    return EstimateRequest(
        context=model.context,
        concurrency=model.concurrency,
        tensor_parallel=ranks,
        pipeline_parallel=stages,
        precision=model.precision,
        kv_cache_dtype=model.kv_cache_dtype,
    )


def _unused(name: str, taken: dict[str, _Candidate]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free


def _view(candidates: dict[str, _Candidate], packing: Packing, devices: Sequence[PlanDevice]) -> PlanView:
    by_name = {each.name: each for each in devices}
    on = {each.name: [name for name, there in packing.placed.items() if each.name in there] for each in devices}
    more = {name: _growth(name, packing, on) for name in packing.placed}
    placed = []
    for name, there in packing.placed.items():
        fit = candidates[name].fits[by_name[there[0]].kind]
        kv_bytes = fit.needed_kv_bytes + more[name]
        placed.append(
            PlacedView(
                model=name,
                devices=list(there),
                pipeline_parallel=candidates[name].stages,
                needed_bytes=fit.needed_bytes,
                kv_cache_bytes=kv_bytes,
                committed_bytes=fit.fixed_bytes + kv_bytes,
                context=fit.model_len,
                concurrency=requests_in(fit.trial.cache, fit.model_len, kv_bytes),
            )
        )
    views = [
        PlanDeviceView(
            name=each.name,
            gpu=each.target.name,
            capacity_bytes=each.target.device_bytes,
            room_bytes=each.room_bytes,
            committed_bytes=each.room_bytes
            - packing.free_bytes[DeviceId(each.name)]
            + sum(more[name] for name in on[each.name]),
            models=on[each.name],
        )
        for each in devices
    ]
    capacity = sum(each.capacity_bytes for each in views)
    return PlanView(
        placed=placed,
        left=[LeftView(model=name, reason=_why_left(candidates[name], packing)) for name in packing.left],
        devices=views,
        committed_ratio=round(sum(each.committed_bytes for each in views) / max(1, capacity), 4),
    )


def _growth(name: str, packing: Packing, on: dict[str, list[str]]) -> int:
    """KV bytes beyond those asked for: each device's rest is shared by who lies there; ranks all get the least."""
    return min(packing.free_bytes[device] // len(on[device]) for device in packing.placed[name])


def _why_left(candidate: _Candidate, packing: Packing) -> str:
    if not candidate.fits:
        return candidate.reason
    needed = min(fit.needed_bytes for fit in candidate.fits.values())
    free = max(packing.free_bytes.values(), default=0)
    where = f"on each of {candidate.device_count} devices" if candidate.device_count > 1 else "on one device"
    return (
        f"needs {format_bytes(needed)} {where}; at most {format_bytes(free)} are left beside what is worth more "
        "together"
    )
