"""The engines of this node, one task each. Starts on one device follow one another, so that memory adds up exactly."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

from heliosd.core.gist import gist
from heliosd.core.hardware import DeviceKind
from heliosd.core.messages import ReplicaBecameReady, ReplicaDied, ReplicaExited
from heliosd.core.names import DeviceId, ReplicaId
from heliosd.engines.engine import Engine, EngineKind, LaunchSpec
from heliosd.engines.replica import live
from heliosd.engines.stop import Stop
from heliosd.errors import EngineFailed

log = logging.getLogger("heliosd.engines")


class Pool:
    """Owner of all running engines. Reports through `post` and in no other way."""

    def __init__(
        self,
        kinds: Mapping[DeviceKind, EngineKind],
        post: Callable[[ReplicaBecameReady | ReplicaDied | ReplicaExited], None],
        *,
        now: Callable[[], float],
        start_timeout_s: float,
    ) -> None:
        self.kinds = kinds
        self._post = post
        self._now = now
        self._start_timeout_s = start_timeout_s
        self._engines: dict[ReplicaId, Engine] = {}
        self._stops: dict[ReplicaId, Stop] = {}
        self._starting: dict[DeviceId, asyncio.Lock] = {}

    def engine(self, replica: ReplicaId) -> Engine | None:
        """The engine of a ready replica, None before and after."""
        return self._engines.get(replica)

    @property
    def engines(self) -> Mapping[ReplicaId, Engine]:
        return self._engines

    def expect(self, replica: ReplicaId) -> None:
        """Know a replica before its `run`, so that a stop that comes in between is not lost."""
        self._stops[replica] = Stop()

    def stop(self, replica: ReplicaId) -> None:
        """Ask the replica's task to end; its exit is posted when its memory is free. Harmless when it is gone."""
        if replica in self._stops:
            self._stops[replica].ask()

    async def run(self, spec: LaunchSpec) -> None:
        """Live one replica's life. Whatever happens, `ReplicaExited` is posted exactly once, at the end."""
        began = self._now()
        cause: str | None = "its task was cancelled"
        locks = AsyncExitStack()

        async def became_ready(engine: Engine) -> None:
            await locks.aclose()
            self._engines[spec.replica] = engine
            ready_s = self._now() - began
            log.info(
                "engine ready",
                extra={"replica": spec.replica, "model": spec.served_names[0], "seconds": round(ready_s, 3)},
            )
            self._post(ReplicaBecameReady(self._now(), spec.replica, engine.footprint))

        try:
            async with locks:
                await self._take_turns(spec, locks)
                cause = await live(
                    spec,
                    self._kind_for(spec),
                    start_timeout_s=self._start_timeout_s,
                    stop=self._stops[spec.replica],
                    became_ready=became_ready,
                    died=lambda: self._post(ReplicaDied(self._now(), spec.replica)),
                )
        except EngineFailed as failure:
            cause = failure.message
        finally:
            self._engines.pop(spec.replica, None)
            del self._stops[spec.replica]
            log.info("engine gone", extra={"replica": spec.replica, "cause": cause and gist(cause)})
            self._post(ReplicaExited(self._now(), spec.replica, cause))

    async def _take_turns(self, spec: LaunchSpec, locks: AsyncExitStack) -> None:
        """Wait until nobody else starts on these devices, or the replica is told to stop."""
        for device in sorted(device.id for device in spec.devices):
            lock = self._starting.setdefault(device, asyncio.Lock())
            await self._stops[spec.replica].unless(locks.enter_async_context(lock))

    def failed(self, replica: ReplicaId, cause: str) -> None:
        """A replica could not even be launched."""
        self._stops.pop(replica, None)
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
