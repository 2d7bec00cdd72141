"""What a model would take on this node: asks the store and the records, lets `estimation` calculate, and remembers.

The core never estimates; the node puts the answer from here into the event.
"""

import asyncio
import difflib
import hashlib
import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from heliosd.config import ModelSettings, Settings
from heliosd.core.adapters import AdapterRoom, room_for, with_room
from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.messages import Demand
from heliosd.core.names import ModelRef
from heliosd.engine_arguments import arguments_of, chosen_captures, chosen_step
from heliosd.errors import BadRequest, NotFound
from heliosd.estimation.calibration import Calibration
from heliosd.estimation.capture_choice import CAPTURES, for_use, given
from heliosd.estimation.chosen_limits import STEP, within
from heliosd.estimation.division import Division, division
from heliosd.estimation.engine_versions import parse_version
from heliosd.estimation.estimate import Estimate, History, Place, Wishes, estimate, sequences
from heliosd.estimation.known import Known
from heliosd.estimation.launch import CURRENT, Version
from heliosd.state.records import Records
from heliosd.store.store import Store
from heliosd.store.stored import StoredModel

# In this order: a model goes to the GPUs if it can ever fit there.
FAMILIES = (
    frozenset({DeviceKind.CUDA, DeviceKind.MIG}),
    frozenset({DeviceKind.SIMULATED}),
    frozenset({DeviceKind.HOST}),
)


@dataclass(frozen=True, slots=True)
class Appraisal:
    """A stored model with what it needs here."""

    stored: StoredModel
    """The model or adapter that was asked about."""
    base: StoredModel
    """What an engine is started with: the model itself, or the one that the adapter is for."""
    estimate: Estimate
    demand: Demand
    """The base's: it and its adapters are served by one engine."""


class Demands:
    """Answers are remembered until the store, the settings, the devices or the measurements change."""

    def __init__(
        self, store: Store, records: Records, settings: Settings, engine_name: Callable[[DeviceKind], str]
    ) -> None:
        self._store = store
        self._records = records
        self.engine_name = engine_name
        self._known: dict[ModelRef, Appraisal] = {}
        self._generation = 0
        self._starts = 0
        """Measured ones, so that a calibration knows whether it has seen them all."""
        self._calibration: Calibration | None = None
        self.settings = settings
        self.devices: tuple[Device, ...] = ()
        self.at_once: Callable[[str], int | None] = lambda model: None
        """How many requests at once are to be expected of a model at most; None: nobody knows."""

    def forget(self) -> None:
        """Something that estimates rest on has changed."""
        self._generation += 1
        self._known.clear()

    def measured(self) -> None:
        """A start was measured and recorded: estimates learn from it."""
        self._calibration = None
        self._starts += 1
        self.forget()

    async def _learned(self) -> Calibration:
        """What all recorded starts say; worked out again, in a thread, after each of them."""
        while self._calibration is None:
            starts = self._starts
            found = await asyncio.to_thread(Calibration, await self._records.loads())
            if starts == self._starts:
                self._calibration = found
        return self._calibration

    async def of(self, ref: ModelRef) -> Appraisal | None:
        """What the model of this ref or alias takes; None when the store does not have it."""
        if ref in self._known:
            return self._known[ref]
        generation = self._generation
        stored = await self._store.find(ref)
        if stored is None:
            return None
        appraisal = await self.appraise(stored)
        if generation == self._generation:
            self._known[ref] = appraisal
        return appraisal

    async def appraise(
        self,
        stored: StoredModel,
        *,
        kv_cache_bytes: int | None = None,
        max_model_len: int | None = None,
        max_num_seqs: int | None = None,
        known: Known | None = None,
    ) -> Appraisal:
        """Estimate with the model's settings, or with what is given instead of them.

        On the kind of device where it can ever fit, GPUs first; where it fits nowhere, on the first kind there is.
        An adapter takes what its base does, with room for adapters. Raises BadRequest when the wishes contradict each
        other, and for an adapter that its base's settings leave no room for.
        """
        base = await self._base_of(stored)
        settings = self.settings.for_model(str(base.ref))
        adapters = await self._store.adapters(base.ref)
        room = room_for([each.adapter.rank for each in adapters if each.adapter], settings.engine_args)
        _check_room(stored, room)
        settings = replace(settings, engine_args=with_room(settings.engine_args, room))
        wishes = Wishes(
            kv_cache_bytes=kv_cache_bytes or settings.kv_cache_bytes,
            max_model_len=max_model_len or settings.max_model_len,
            max_num_seqs=max_num_seqs or settings.max_num_seqs,
            dtype=settings.dtype,
            tensor_parallel=settings.tensor_parallel,
            pipeline_parallel=settings.pipeline_parallel or 1,
            engine_args=settings.engine_args,
        )
        fallback: Appraisal | None = None
        known = known or await self._store.known(base)
        for family in FAMILIES:
            devices = [device for device in self.devices if device.kind in family]
            if not devices:
                continue
            largest = max(devices, key=lambda device: device.capacity_bytes)
            sizes = [each.profile.weights_bytes for each in adapters] if DeviceKind.HOST in family else []
            copies_bytes = sum(heapq.nlargest(room.at_once, sizes)) if room else 0
            usable = usable_bytes(largest, self.settings) - copies_bytes
            cut = _division(known, settings, devices)
            divided = replace(settings, tensor_parallel=cut.tensor, pipeline_parallel=cut.pipeline)
            wishes = replace(wishes, tensor_parallel=cut.tensor, pipeline_parallel=cut.pipeline)
            predict = self._predictor(base, known, divided, largest, await self._learned())
            place = Place(largest.kind, largest.capacity_bytes, largest.name)
            version = version_of(self.engine_name(largest.kind))
            asked, why = for_use(known, wishes, place, version, self.at_once(str(base.ref)))
            predicted = within(usable, asked, known, predict)
            if why:
                predicted = replace(predicted, notes=(*predicted.notes, why))
            step = chosen_step(predicted.launch, settings.engine_args)
            captures = chosen_captures(predicted.launch, settings.engine_args)
            arguments = arguments_of(divided, predicted.max_num_seqs, step, captures)
            demand = _demand(base, predicted, family, settings, arguments)
            if cut.reason:
                predicted = replace(predicted, notes=(*predicted.notes, f"{_staged(cut)}: {cut.reason}"))
                demand = replace(demand, division_reason=cut.reason)
            appraisal = Appraisal(stored, base, predicted, demand)
            if room is not None:
                appraisal = _with_adapters(appraisal, room, copies_bytes)
            if predicted.per_device.total_bytes <= usable:
                return appraisal
            fallback = fallback or appraisal
        return fallback or self._nowhere(stored, base, known, wishes, settings)

    async def _base_of(self, stored: StoredModel) -> StoredModel:
        if stored.adapter is None:
            return stored
        base = await self._store.find(stored.adapter.base)
        if base is None:  # the store keeps it for as long as there are adapters of it
            raise NotFound(f"cannot serve {stored.ref}: its base {stored.adapter.base} is not in the store any more")
        return base

    def _predictor(
        self, stored: StoredModel, known: Known, settings: ModelSettings, device: Device, learned: Calibration
    ) -> Callable[[Wishes, int | None], Estimate]:
        engine = self.engine_name(device.kind)
        theirs = given(Wishes(engine_args=settings.engine_args))

        def predict(wishes: Wishes, room_bytes: int | None) -> Estimate:
            seqs, step = sequences(wishes, device.kind), wishes.engine_args.get(STEP)
            chosen = None if step == settings.engine_args.get(STEP) else step
            captures = () if theirs else wishes.engine_args.get(CAPTURES, ())
            history = History(learned, engine, arguments_of(settings, seqs, chosen, captures), stored.revision)
            at = Place(device.kind, device.capacity_bytes, device.name, room_bytes)
            return estimate(known, stored.profile, wishes, at, history, version_of(engine))

        return predict

    @staticmethod
    def _nowhere(
        stored: StoredModel, base: StoredModel, known: Known, wishes: Wishes, settings: ModelSettings
    ) -> Appraisal:
        """No device at all: still say what it would take, so that the refusal has its arithmetic."""
        at = Place(DeviceKind.HOST, base.profile.weights_bytes * 4)
        predicted = estimate(known, base.profile, wishes, at)
        return Appraisal(stored, base, predicted, _demand(base, predicted, frozenset(), settings, ""))

    async def unknown(self, ref: ModelRef) -> NotFound:
        """The error for a model that nobody has, with the nearest that somebody does."""
        names = [name for stored in await self._store.models() for name in (str(stored.ref), *stored.aliases)]
        near = nearest(str(ref), names)
        hint = f"; did you mean {' or '.join(near)}?" if near else "; `heliosctl ls` lists what is here"
        return NotFound(f"cannot find model {ref}{hint}", code="model_not_found")


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """Up to three names that look like `name`, compared without case and organisation too."""
    known: dict[str, list[str]] = {}
    for each in names:
        known.setdefault(each.lower(), []).append(each)
        if "/" in each:
            known.setdefault(each.rpartition("/")[2].lower(), []).append(each)
    wanted = name.lower()
    found = difflib.get_close_matches(wanted, known, n=3) or difflib.get_close_matches(
        wanted.rpartition("/")[2], known, n=3
    )
    return list(dict.fromkeys(each for near in found for each in known[near]))[:3]


def version_of(engine: str) -> Version:
    """The release in an engine's name, such as `vllm 0.32.0`; the one Helios ships with where it names none."""
    return parse_version(engine.rpartition(" ")[2]) or CURRENT


def usable_bytes(device: Device, settings: Settings) -> int:
    """What could ever be promised of a device, as the ledger reckons."""
    return device.capacity_bytes - int(device.capacity_bytes * settings.devices.safety_ratio)


def _division(known: Known, settings: ModelSettings, devices: Iterable[Device]) -> Division:
    """As the operator said; over as many devices, but in stages, where he said nothing of those and it must be."""
    if settings.pipeline_parallel is not None:
        return Division(settings.tensor_parallel, settings.pipeline_parallel)
    return division(known.model, settings.tensor_parallel, devices)


def _staged(cut: Division) -> str:
    each = "one device" if cut.tensor == 1 else f"{cut.tensor} devices"
    return f"cut into {cut.pipeline} pipeline stages of {each} each"


def _check_room(stored: StoredModel, room: AdapterRoom | None) -> None:
    """An operator may want less room than an adapter needs. Raises BadRequest."""
    if stored.adapter is None:
        return
    base, rank = stored.adapter.base, stored.adapter.rank
    if room is None:
        why = "set enable_lora = false; take that out"
    elif rank > room.max_rank:
        why = f"set max_lora_rank = {room.max_rank}, and its rank is {rank}; raise that or leave it out"
    else:
        return
    raise BadRequest(f"cannot serve {stored.ref}: the engine_args of its base {base} {why}", code="no_adapter_room")


def _with_adapters(appraisal: Appraisal, room: AdapterRoom, copies_bytes: int) -> Appraisal:
    """The same, with the room for adapters in its demand and told in its notes.

    `copies_bytes`: adapters that the engine has read lie in host memory too, and so on the device that this is.
    """
    whose = f"an adapter of {appraisal.base.ref}, which is estimated" if appraisal.stored.adapter else "estimated"
    note = f"{whose} with {room}"
    booked = appraisal.demand.per_device
    booked = replace(booked, overhead_bytes=booked.overhead_bytes + copies_bytes)
    predicted = replace(appraisal.estimate, per_device=booked, notes=(*appraisal.estimate.notes, note))
    return replace(
        appraisal, estimate=predicted, demand=replace(appraisal.demand, per_device=booked, adapters=room, mould="")
    )


def _demand(
    stored: StoredModel, predicted: Estimate, family: frozenset[DeviceKind], settings: ModelSettings, arguments: str
) -> Demand:
    return Demand(
        model=str(stored.ref),
        revision=stored.revision,
        per_device=predicted.per_device,
        device_count=predicted.device_count,
        pipeline_parallel=predicted.pipeline_parallel,
        kinds=family,
        max_model_len=predicted.max_model_len,
        max_num_seqs=predicted.max_num_seqs,
        arguments=arguments,
        basis=predicted.basis,
        remote_code=stored.profile.remote_code,
        keep_alive_s=settings.keep_alive_s,
        kv_least_bytes=predicted.kv_least_bytes,
        kv_most_bytes=predicted.kv_most_bytes,
        max_replicas=settings.max_replicas,
        mould=_mould(stored, predicted, settings, arguments),
    )


def _mould(stored: StoredModel, predicted: Estimate, settings: ModelSettings, arguments: str) -> str:
    """Of the revision and of how it is started: what an engine that runs must have in common with it."""
    shapes = {"quantization", "load_format", "speculative_config", "hf_overrides", "config_format", "tokenizer_mode"}
    if not stored.profile.mould or settings.trust_remote_code or shapes & settings.engine_args.keys():
        return ""
    said = f"{stored.profile.mould} {arguments} {predicted.max_model_len} {predicted.max_num_seqs} {settings.dtype}"
    return hashlib.sha256(said.encode()).hexdigest()[:16]
