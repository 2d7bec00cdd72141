"""Keeps shells ready: made while nobody waits for a start, and given up first when host memory gets short."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from heliosd.core.messages import Event, ShellsHeld
from heliosd.core.shells import SOON_S, Room, retry_s, room_for
from heliosd.core.snapshot import ShellsStatus
from heliosd.core.units import format_bytes
from heliosd.engines.shells import ShellNews, Shells
from heliosd.errors import EngineFailed
from heliosd.state.journal import Journal
from heliosd.telemetry.metrics import Metrics

log = logging.getLogger("heliosd.shells")


QUIET_S = 30.0
"""So long after one was used the next is made even though somebody is served."""


class Around(Protocol):
    """What the node tells of itself."""

    @property
    def calm(self) -> bool:
        """Nobody waits for a start, and none is under way."""
        ...

    @property
    def idle(self) -> bool:
        """Besides, nobody is served."""
        ...

    @property
    def shell_room_bytes(self) -> int:
        """Host memory that shells may hold, all together."""
        ...

    async def changed(self, version: int) -> int: ...
    def post(self, event: Event) -> None: ...
    def now(self) -> float: ...


class KeptShells:
    """`wanted`: how many of each kind. A kind that is not preloaded yet gets none."""

    def __init__(
        self,
        kinds: Mapping[str, Shells],
        warm: Callable[[str], bool],
        node: Around,
        journal: Journal,
        metrics: Metrics,
        wanted: Callable[[], int],
    ) -> None:
        self._kinds = dict(kinds)
        self._warm = warm
        self._node = node
        self._journal = journal
        self._metrics = metrics
        self._wanted = wanted
        self._look = asyncio.Event()
        self._failures = dict.fromkeys(kinds, 0)
        self._retry_at = dict.fromkeys(kinds, 0.0)
        self._made_at = dict.fromkeys(kinds, 0.0)
        self._used_at = dict.fromkeys(kinds, -QUIET_S)
        self._why = dict.fromkeys(kinds, "")
        self._told_bytes = 0
        for name, shells in self._kinds.items():
            shells.tell = partial(self._heard, name)

    def status(self) -> dict[str, ShellsStatus]:
        """Of each kind."""
        return {
            name: ShellsStatus(self._wanted(), shells.waiting, shells.making, shells.own_bytes, self._why[name])
            for name, shells in self._kinds.items()
        }

    async def run(self) -> None:
        """Keep them, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(), name="shells follow the node")
            while True:
                await self._keep()
                await self._until_something_happens()

    async def _follow(self) -> None:
        version = -1
        while True:
            version = await self._node.changed(version)
            self._look.set()

    async def _until_something_happens(self) -> None:
        """An event, a shell's end, or a moment put down for the next try."""
        now = self._node.now()
        at = min(
            (at for at in (*self._retry_at.values(), *map(_quiet, self._used_at.values())) if at > now), default=None
        )
        try:
            async with asyncio.timeout(None if at is None else at - now):
                await self._look.wait()
        except TimeoutError:
            return
        self._look.clear()

    async def _keep(self) -> None:
        left_bytes = self._node.shell_room_bytes
        for name, shells in self._kinds.items():
            room = room_for(self._wanted(), shells.each_bytes, left_bytes)
            left_bytes -= room.count * shells.each_bytes
            self._give_up(name, shells, room)
            if shells.waiting < room.count and self._may_make(name):
                await self._make(name, shells)
                self._look.set()
        self._tell()

    def _may_make(self, name: str) -> bool:
        """At once where nobody is served, whose first word would come the later for it; else after a while."""
        now = self._node.now()
        if not self._node.calm or not self._warm(name) or now < self._retry_at[name]:
            return False
        return self._node.idle or now >= _quiet(self._used_at[name])

    def _give_up(self, name: str, shells: Shells, room: Room) -> None:
        count, freed_bytes = 0, 0
        while shells.waiting > room.count and (own_bytes := shells.give_up()) is not None:
            count, freed_bytes = count + 1, freed_bytes + own_bytes
        if room.count < self._wanted():
            self._why[name] = room.reason
        elif not self._failures[name]:
            self._why[name] = ""
        if count:
            self._metrics.shell("given_up", count)
            text = f"{count} of {name} given up, {format_bytes(freed_bytes)} are free: {room.reason}"
            log.info("shells given up", extra={"engine": name, "count": count, "reason": room.reason})
            self._journal.note("shell", text, detail={"what": "given_up", "engine": name, "bytes": freed_bytes})

    async def _make(self, name: str, shells: Shells) -> None:
        try:
            made = await shells.make()
        except EngineFailed as error:
            self._metrics.shell("failed")
            self._put_off(name, error.message)
            return
        self._made_at[name] = self._node.now()
        self._why[name] = ""
        self._metrics.shell("made")
        text = f"one of {name} is ready, made in {made.made_s:.2f} s: {format_bytes(made.own_bytes)} of its own"
        log.info("shell made", extra={"engine": name, "seconds": round(made.made_s, 3), "bytes": made.own_bytes})
        detail = {"what": "made", "engine": name, "bytes": made.own_bytes, "seconds": round(made.made_s, 3)}
        self._journal.note("shell", text, detail=detail)

    def _put_off(self, name: str, why: str) -> None:
        self._failures[name] += 1
        delay_s = retry_s(self._failures[name])
        self._retry_at[name] = self._node.now() + delay_s
        self._why[name] = f"{why}; next try in {delay_s:.0f} s"
        log.warning("no shell", extra={"engine": name, "cause": why, "retry_s": delay_s})
        self._journal.note("shell", f"none of {name}: {self._why[name]}", detail={"what": "failed", "engine": name})

    def _heard(self, name: str, news: ShellNews) -> None:
        """A start began in one, or one ended by itself."""
        self._metrics.shell(news.what)
        if news.what == "used":
            self._failures[name] = 0
            self._used_at[name] = self._node.now()
            text = f"{news.replica} begins in a process that was made ahead"
            detail = {"what": "used", "engine": name}
            self._journal.note("shell", text, replica=news.replica, model=news.model, detail=detail)
        elif self._node.now() - self._made_at[name] < SOON_S:
            self._put_off(name, "it died soon after it was made")
        else:
            self._failures[name] = 0
            text = f"one of {name} died and is made again"
            self._journal.note("shell", text, detail={"what": "died", "engine": name})
        self._tell()
        self._look.set()

    def _tell(self) -> None:
        held_bytes = sum(shells.own_bytes for shells in self._kinds.values())
        self._metrics.shells_are(
            waiting=sum(shells.waiting for shells in self._kinds.values()),
            making=sum(shells.making for shells in self._kinds.values()),
        )
        if held_bytes != self._told_bytes:
            self._told_bytes = held_bytes
            self._node.post(ShellsHeld(self._node.now(), held_bytes))


def _quiet(used_at: float) -> float:
    return used_at + QUIET_S
