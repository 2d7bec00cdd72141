"""Replicas stopped or put to sleep on an operator's word, or all at once, and the wait until it is done."""

import asyncio
import logging
from collections.abc import Callable

from heliosd.core.lifecycle import State
from heliosd.core.messages import DrainAsked, Event, SleepAsked, StopAsked
from heliosd.core.names import ReplicaId
from heliosd.core.scheduler import Scheduler
from heliosd.errors import Conflict, NotFound
from heliosd.node.changes import Changes
from heliosd.store.store import Store

log = logging.getLogger("heliosd.node")

_ON_THE_WAY_TO_SLEEP = (State.READY, State.DRAINING, State.SLEEPING)


class Stopping:
    """`inbox` is the node's: what is asked here goes through it."""

    def __init__(
        self,
        scheduler: Scheduler,
        store: Store,
        changes: Changes,
        inbox: asyncio.Queue[Event],
        now: Callable[[], float],
    ) -> None:
        self._scheduler = scheduler
        self._store = store
        self._changes = changes
        self._inbox = inbox
        self._now = now

    async def stop(self, subject: str) -> tuple[ReplicaId, ...]:
        """Drain and stop a replica, or all of a model; returns when their memory is free. Raises NotFound."""
        chosen = await self.named(subject, "stop")
        for replica in chosen:
            self._inbox.put_nowait(StopAsked(self._now(), replica))
        await self._until_gone(frozenset(chosen))
        return chosen

    async def sleep(self, subject: str) -> tuple[ReplicaId, ...]:
        """Put a replica, or all of a model, to sleep; returns when they sleep, their leases over.

        Raises NotFound, and Conflict when an engine cannot sleep or ended instead.
        """
        chosen = await self.named(subject, "put to sleep")
        for replica in chosen:
            if why := self._scheduler.sleepless(replica, self._now()):
                raise Conflict(f"cannot put {replica} to sleep: {why}", code="cannot_sleep")
            self._inbox.put_nowait(SleepAsked(self._now(), replica))
        running = self._scheduler.replicas
        while any(each in running and running[each].state in _ON_THE_WAY_TO_SLEEP for each in chosen):
            await self._changes.after(self._changes.version)
            for each in chosen:
                if each in running and running[each].state is State.READY and not self._inbox.qsize():
                    why = self._scheduler.sleepless(each, self._now()) or "it went on to serve"
                    raise Conflict(f"cannot put {each} to sleep: {why}", code="cannot_sleep")
        if awake := [each for each in chosen if each not in running or running[each].state is not State.ASLEEP]:
            why = "it ended, or a request woke it at once; `heliosctl explain` tells"
            raise Conflict(f"cannot put {', '.join(awake)} to sleep: {why}", code="cannot_sleep")
        return chosen

    async def drain(self, deadline_s: float) -> None:
        """Take no new requests, finish the old, stop all replicas; returns then, or when the deadline has passed."""
        self._inbox.put_nowait(DrainAsked(self._now()))
        try:
            async with asyncio.timeout(deadline_s):
                while not self._scheduler.draining:
                    await self._changes.after(self._changes.version)
                await self._until_gone(frozenset(self._scheduler.replicas))
        except TimeoutError:
            left = {each.id: len(each.leases) for each in self._scheduler.replicas.values()}
            log.warning("drain deadline passed", extra={"seconds": deadline_s, "leases": left})

    async def named(self, subject: str, doing: str) -> tuple[ReplicaId, ...]:
        """The replicas of that id, model or alias. Raises NotFound."""
        running = self._scheduler.replicas
        stored = await self._store.by_name(subject)
        model = subject if stored is None else str(stored.ref)
        chosen = tuple(each.id for each in running.values() if each.id == subject or each.demand.model == model)
        if not chosen:
            why = "no replica runs under that name"
            if stored is not None and stored.adapter is not None:
                why = f"it is an adapter, served by the replicas of {stored.adapter.base}; name those"
            raise NotFound(f"cannot {doing} {subject}: {why}", code="replica_not_found")
        return chosen

    async def _until_gone(self, replicas: frozenset[ReplicaId]) -> None:
        while replicas & self._scheduler.replicas.keys():
            await self._changes.after(self._changes.version)
