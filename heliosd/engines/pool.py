"""The engines of this node, one task each. Starts on one device follow one another, so that memory adds up exactly."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial

from heliosd.core.gist import gist
from heliosd.core.hardware import DeviceKind
from heliosd.core.messages import (
    ReplicaBecameReady,
    ReplicaDied,
    ReplicaExited,
    ReplicaPressed,
    ReplicaSlept,
    ReplicaWoke,
)
from heliosd.core.names import DeviceId, ReplicaId
from heliosd.engines.engine import Engine, EngineKind, LaunchSpec, Pressure
from heliosd.engines.replica import HandedOver, Order, live, within
from heliosd.engines.stop import Stop
from heliosd.errors import EngineFailed

log = logging.getLogger("heliosd.engines")

Report = ReplicaBecameReady | ReplicaSlept | ReplicaWoke | ReplicaPressed | ReplicaDied | ReplicaExited


@dataclass(frozen=True, slots=True)
class _Wishes:
    """What a replica's task is told by others."""

    stop: Stop = field(default_factory=Stop)
    orders: "asyncio.Queue[Order]" = field(default_factory=asyncio.Queue)


class Pool:
    """Owner of all running engines. Reports through `post` and in no other way."""

    def __init__(
        self,
        kinds: Mapping[DeviceKind, EngineKind],
        post: Callable[[Report], None],
        *,
        now: Callable[[], float],
        start_timeout_s: float,
    ) -> None:
        self.kinds = kinds
        self._post = post
        self._now = now
        self._start_timeout_s = start_timeout_s
        self._engines: dict[ReplicaId, Engine] = {}
        self._wishes: dict[ReplicaId, _Wishes] = {}
        self._taking: dict[DeviceId, asyncio.Lock] = {}
        self._asked: dict[ReplicaId, asyncio.Future[Engine | None]] = {}
        """Engines that others wait to take over; None when one ended before."""

    def named_kinds(self) -> Mapping[str, EngineKind]:
        """The engines it can start, by name: `vllm cuda`, `simulated`. GPUs and their slices share one."""
        named: dict[EngineKind, str] = {}
        for device, kind in self.kinds.items():
            module = type(kind).__module__.rpartition(".")[2]
            named.setdefault(kind, " ".join(dict.fromkeys((module, str(device)))))
        return {name: kind for kind, name in named.items()}

    def engine(self, replica: ReplicaId) -> Engine | None:
        """The engine of a ready or sleeping replica, None before and after."""
        return self._engines.get(replica)

    @property
    def engines(self) -> Mapping[ReplicaId, Engine]:
        return self._engines

    def expect(self, replica: ReplicaId) -> None:
        """Know a replica before its `run`, so that a stop that comes in between is not lost."""
        self._wishes[replica] = _Wishes()

    def stop(self, replica: ReplicaId) -> None:
        """Ask the replica's task to end; its exit is posted when its memory is free. Harmless when it is gone."""
        if replica in self._wishes:
            self._wishes[replica].stop.ask()

    def sleep(self, replica: ReplicaId, level: int) -> None:
        """Have a ready replica that serves nobody give its memory back.

        `ReplicaSlept` is posted when it has, `ReplicaExited` when it could not. Harmless when it is gone.
        """
        self._order(replica, partial(self._put_to_sleep, level))

    def wake(self, replica: ReplicaId) -> None:
        """Have a sleeping replica take its memory again, in turn with others that take memory of its devices.

        `ReplicaWoke` is posted when it has, `ReplicaExited` when it could not. Harmless when it is gone.
        """
        self._order(replica, self._wake_up)

    def _order(self, replica: ReplicaId, order: Order) -> None:
        if replica in self._wishes:
            self._wishes[replica].orders.put_nowait(order)

    async def run(self, spec: LaunchSpec, takes_over: ReplicaId | None = None) -> None:
        """Live one replica's life. Whatever happens, `ReplicaExited` is posted exactly once, at the end.

        With `takes_over` it begins in that one's engine; where this fails, in a fresh one.
        """
        began = self._now()
        cause: str | None = "its task was cancelled"
        wishes = self._wishes[spec.replica]
        locks = AsyncExitStack()

        async def became_ready(engine: Engine) -> None:
            await locks.aclose()
            spec.clock.mark("settle")
            self._engines[spec.replica] = engine
            ready_s = self._now() - began
            log.info(
                "engine ready",
                extra={"replica": spec.replica, "model": spec.served_names[0], "seconds": round(ready_s, 3)},
            )
            now, held = self._now(), engine.footprint
            phases = tuple(spec.clock.timeline().seconds().items())
            self._post(ReplicaBecameReady(now, spec.replica, held, engine.sleep_levels, engine.swaps, phases))
            engine.on_pressure(partial(self._pressed, spec.replica))

        try:
            async with locks:
                cause = await live(
                    spec,
                    partial(self._begin, spec, takes_over, locks),
                    stop=wishes.stop,
                    orders=wishes.orders,
                    became_ready=became_ready,
                    died=lambda: self._post(ReplicaDied(self._now(), spec.replica)),
                )
        except EngineFailed as failure:
            cause = failure.message
        finally:
            self._engines.pop(spec.replica, None)
            del self._wishes[spec.replica]
            asked = self._asked.get(spec.replica)
            if asked is not None and not asked.done():
                asked.set_result(None)
            log.info("engine gone", extra={"replica": spec.replica, "cause": cause and gist(cause)})
            self._post(ReplicaExited(self._now(), spec.replica, cause))

    async def _begin(self, spec: LaunchSpec, takes_over: ReplicaId | None, locks: AsyncExitStack) -> Engine:
        kind, name = self._kind_for(spec), spec.served_names[0]
        if takes_over is not None and (engine := await self._engine_of(takes_over)) is not None:
            spec.clock.mark("turn")
            cannot = f"cannot make {takes_over} {name}"
            try:
                return await within(self._start_timeout_s, kind.take_over(engine, spec), cannot, "not ready")
            except EngineFailed as failure:  # the engine has ended, and its memory is free
                log.warning("hot swap failed", extra={"replica": spec.replica, "model": name, "cause": str(failure)})
        await self._take_turns(spec, locks)
        spec.clock.mark("turn")
        return await within(self._start_timeout_s, kind.start(spec), f"cannot start {name}", "not ready")

    async def _engine_of(self, replica: ReplicaId) -> Engine | None:
        """Have a ready replica that serves nobody leave its engine; its life ends with that. None: it ended before."""
        if replica not in self._wishes:
            return None
        asked: asyncio.Future[Engine | None] = asyncio.get_running_loop().create_future()
        self._asked[replica] = asked
        self._order(replica, self._leave)
        try:
            return await asked
        except asyncio.CancelledError:
            if not asked.cancelled() and (engine := asked.result()) is not None:
                await asyncio.shield(engine.stop())
            raise
        finally:
            del self._asked[replica]

    async def _leave(self, spec: LaunchSpec, engine: Engine) -> None:
        asked = self._asked.get(spec.replica)
        if asked is None or asked.done():
            raise EngineFailed(f"cannot leave the engine of {spec.replica} to another: that one was stopped")
        asked.set_result(engine)
        raise HandedOver

    async def _put_to_sleep(self, level: int, spec: LaunchSpec, engine: Engine) -> None:
        began, name = self._now(), spec.served_names[0]
        cannot = f"cannot put {name} to sleep at level {level}"
        slept = await within(self._start_timeout_s, engine.sleep(level), cannot, "not asleep")
        taken = {"replica": spec.replica, "model": name, "sleep_level": level, "seconds": round(self._now() - began, 3)}
        log.info("engine asleep", extra=taken)
        self._post(ReplicaSlept(self._now(), spec.replica, level, slept.residue, slept.host_bytes))

    async def _wake_up(self, spec: LaunchSpec, engine: Engine) -> None:
        async with AsyncExitStack() as locks:
            await self._take_turns(spec, locks)
            began, name = self._now(), spec.served_names[0]
            measured = await within(self._start_timeout_s, engine.wake(), f"cannot wake {name}", "not awake")
        taken = {"replica": spec.replica, "model": name, "seconds": round(self._now() - began, 3)}
        log.info("engine awake", extra=taken)
        self._post(ReplicaWoke(self._now(), spec.replica, measured))

    def _pressed(self, replica: ReplicaId, pressure: Pressure) -> None:
        counts = pressure.running, pressure.waiting, pressure.kv_used_ratio, pressure.preemptions
        self._post(ReplicaPressed(self._now(), replica, *counts))

    async def _take_turns(self, spec: LaunchSpec, locks: AsyncExitStack) -> None:
        """Wait until nobody else starts or wakes on these devices."""
        for device in sorted(device.id for device in spec.devices):
            await locks.enter_async_context(self._taking.setdefault(device, asyncio.Lock()))

    def failed(self, replica: ReplicaId, cause: str) -> None:
        """A replica could not even be launched."""
        self._wishes.pop(replica, None)
        self._post(ReplicaExited(self._now(), replica, cause))

    def _kind_for(self, spec: LaunchSpec) -> EngineKind:
        kind = self.kinds.get(spec.devices[0].kind)
        if kind is None:
            raise EngineFailed(f"cannot start {spec.served_names[0]}: no engine for {spec.devices[0].kind} devices")
        return kind

    async def warm(self) -> None:
        """Prepare every kind of engine, once each; a kind that cannot be prepared says so when it is used."""
        for kind in dict.fromkeys(self.kinds.values()):
            began = time.monotonic()
            try:
                await kind.warm()
            except EngineFailed as failure:
                log.error("engine kind unusable", extra={"cause": failure.message})
            else:
                log.info("engine kind warm", extra={"seconds": round(time.monotonic() - began, 1)})

    async def close(self) -> None:
        for kind in dict.fromkeys(self.kinds.values()):
            await kind.close()
