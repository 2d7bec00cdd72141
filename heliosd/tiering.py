"""Keeps each model in the tier where it is worth most: plans after what changes that, and has the store carry it out.

What is likely to be loaded is learned from loads: a model that a GPU never lets go is asked for all the time and read
never. Of a model that was not loaded in this life its requests tell.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from heliosd.core.forecast import Forecast
from heliosd.core.lifecycle import State
from heliosd.core.manifest import Manifest
from heliosd.core.messages import DevicesRead, Event, ModelsKnown, ReplicaBecameReady, ReplicaExited, TierHeld
from heliosd.core.names import Digest, ModelRef
from heliosd.core.retention import ELSEWHERE, HORIZON_S, SPEEDS, Kept, Move, Piece, Plan, Speed, Tier, pieces, plan
from heliosd.core.scheduler import Scheduler
from heliosd.core.units import MiB, format_bytes
from heliosd.errors import BadRequest, Conflict, HeliosError, NotFound
from heliosd.placing import Blobs, Placing
from heliosd.state.journal import Journal
from heliosd.state.tier_wishes import TierWishes
from heliosd.store.away import AwayFile
from heliosd.store.store import Store
from heliosd.store.stored import StoredModel
from heliosd.store.tiers.tiers import Survey
from heliosd.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from heliosd.telemetry.traces import Traces

log = logging.getLogger("heliosd.tiers")

REPLAN_S = 30.0
"""How long a plan stands while nothing but time passes."""
TELLING_BYTES = 64 * MiB
"""A smaller move says nothing of a volume's speed."""
SHOWN_SHARE = 0.01
"""Of a model's bytes: fewer in a tier, such as a configuration that others need too, are not told of."""
_ON_THE_WAY = (State.FETCHING, State.STARTING, State.WAKING)


@dataclass(frozen=True, slots=True)
class TierStatus:
    """One tier, for showing."""

    tier: Tier
    budget_bytes: int | None
    """None: no limit is known."""
    used_bytes: int
    models: tuple[str, ...]
    """Those that have bytes there."""
    note: str = ""
    bytes_per_s: float | None = None
    """At which it is read, of late; None: not measured."""


LetGo = Literal["never", "peer", "hub"]
"""Whether models that others have may be let go for want of room: never, only those that a peer has, or also those
that only the hub has."""


class _MakeWay(Conflict):
    """A move is given up because somebody needs the room now."""


class Tiering:
    """`happened` is told of every event, after the scheduler; `run` does the work."""

    def __init__(
        self,
        store: Store,
        wishes: TierWishes,
        scheduler: Scheduler,
        journal: Journal,
        metrics: Metrics,
        post: Callable[[Event], None],
        now: Callable[[], float],
        traces: "Traces | None" = None,
    ) -> None:
        """`traces`: where a move has a trace of its own; None: nowhere."""
        self._traces = traces
        self._store = store
        self._tiers = store.tiers
        self._wishes = wishes
        self._scheduler = scheduler
        self._journal = journal
        self._metrics = metrics
        self._post = post
        self._now = now
        self.may_let_go: Callable[[], LetGo] = lambda: "never"
        """What the operator allows; set by who knows the configuration."""
        self._loads = Forecast()
        self._speeds = dict(SPEEDS)
        self._changed = asyncio.Event()
        self._over = asyncio.Event()
        self._calm = asyncio.Event()
        self._calm.set()
        self._doing = asyncio.Lock()
        self._in_need = 0
        self._failed: set[Digest] = set()
        self._survey: Survey | None = None
        self._planned_at = -REPLAN_S
        self._told_bytes = 0
        self._blobs: Mapping[Digest, frozenset[Digest]] = {}
        """Of each file the blobs it is in."""
        self._sizes: Mapping[Digest, int] = {}
        """Of each blob, as last seen."""
        self._away: Mapping[Digest, AwayFile] = {}
        """Files that were let go."""
        self._last: tuple[Piece, ...] = ()
        self.moving: Move | None = None
        """What is being moved."""
        self._tiers.make_room = self._make_room
        self.placing = Placing(post, now, self._changed.set)
        self.staged: Callable[[str, float, float, int], None] = lambda model, began_at, ended_at, n_bytes: None
        """Told of each model that was brought to a faster tier."""

    @property
    def active(self) -> bool:
        """Whether there is more than one tier."""
        limits = self._tiers.limits
        return limits.disk_dir is not None or limits.host_memory_bytes > 0

    # ---- what happens ----------------------------------------------------------

    def happened(self, event: Event) -> None:
        """Take notice of an event that the scheduler has just handled."""
        match event:
            case ReplicaBecameReady(at=at, replica=replica):
                if found := self._scheduler.replicas.get(replica):
                    self._loads.asked(found.demand.model, at)
                self._changed.set()
            case ReplicaExited():
                self._changed.set()
            case ModelsKnown():
                self._failed.clear()
                self._changed.set()
            case DevicesRead(at=at) if at - self._planned_at >= REPLAN_S and self.active:
                self._changed.set()
            case _:
                pass
        if any(each.state in _ON_THE_WAY for each in self._scheduler.replicas.values()):
            self._calm.clear()
        else:
            self._calm.set()
        limit = min(self._tiers.limits.host_memory_bytes, self._scheduler.ledger.tier_room_bytes)
        self._tiers.host_limit_bytes = limit
        if self._tiers.staged_bytes > limit:
            self._over.set()

    async def run(self) -> None:
        """Plan and move, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(), name="tiers")
            tasks.create_task(self._give_way(), name="tiers give way")

    async def _follow(self) -> None:
        self._changed.set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            self._planned_at = self._now()
            try:
                if not self.active:
                    await self._look_away()
                    self._place(await self._store.models())
                    continue
                async with self._doing:
                    await self._carry_out(await self._plan())
            except (HeliosError, OSError, sqlite3.Error) as error:
                log.error("tiers not planned", extra={"cause": str(error)})

    async def _give_way(self) -> None:
        """Let RAM go as soon as others need it, also while something is being moved."""
        while True:
            await self._over.wait()
            self._over.clear()
            by_worth = sorted(self._tiers.staged, key=self._chances().__getitem__)
            before_bytes = self._tiers.staged_bytes
            for digest in by_worth:
                if self._tiers.staged_bytes <= self._tiers.host_limit_bytes:
                    break
                await self._tiers.unstage(digest)
            self._tell()
            freed_bytes = before_bytes - self._tiers.staged_bytes
            if freed_bytes > 0:
                self._journal.note(
                    "tier",
                    f"{format_bytes(freed_bytes)} of host memory were let go: others need it, and "
                    f"{format_bytes(self._tiers.host_limit_bytes)} are left for models that are ready to load",
                    detail={"bytes": freed_bytes, "from": "host"},
                )
                self._metrics.tier_moved("host", "none")

    def _chances(self) -> dict[Digest, float]:
        """Of each staged blob, how likely it is needed, as the last plan saw it."""
        known = {digest: piece.chance for piece in self._last for digest in piece.digests}
        return {digest: known.get(digest, 0.0) for digest in self._tiers.staged}

    # ---- what is asked ---------------------------------------------------------

    async def plan(self) -> Plan:
        """What would be moved now, without moving it."""
        return await self._plan()

    async def status(self) -> tuple[TierStatus, ...]:
        """Each tier that there is."""
        seen = await self._look()
        models = await self._store.models()
        staged = self._tiers.staged
        places = {Tier.HOST: staged, Tier.NVME: seen.nvme, Tier.DISK: seen.disk}
        found = []
        for tier, budget_bytes in sorted(seen.budgets.items(), key=lambda each: list(Tier).index(each[0])):
            there = places[tier]
            users = tuple(str(each.ref) for each in models if self._parts(each.manifest).keys() & there.keys())
            may_hold = self._tiers.host_limit_bytes if tier is Tier.HOST else budget_bytes
            found.append(TierStatus(tier, may_hold, sum(there.values()), users, self._note(tier)))
        return (*found, *(self._elsewhere(tier, models) for tier in ELSEWHERE))

    def _elsewhere(self, tier: Tier, models: Iterable[StoredModel]) -> TierStatus:
        there = {digest: file.size_bytes for digest, file in self._away.items() if file.tier is tier}
        users = tuple(str(each.ref) for each in models if {file.digest for file in each.manifest.files} & there.keys())
        return TierStatus(tier, None, sum(there.values()), users, "", self._store.fetch_speeds.get(tier))

    def reload_source(self, manifest: Manifest) -> tuple[Tier, float]:
        """The slowest tier that a model's files are in, and the bytes a second that they come from there at."""
        place = next((tier for tier in reversed(Tier) if tier in self.tier_of(manifest).split(", ")), Tier.NVME)
        return place, self._store.fetch_speeds.get(place, self._speeds[place].bytes_per_s)

    def _note(self, tier: Tier) -> str:
        if tier is not Tier.HOST:
            return ""
        if not self._tiers.locked:
            return "read ahead only: the kernel allows too little locked memory"
        limit = self._tiers.limits.host_memory_bytes
        return f"others leave less than the {format_bytes(limit)} configured" if self._squeezed(limit) else ""

    def _squeezed(self, limit: int) -> bool:
        return self._tiers.host_limit_bytes < limit

    def tier_of(self, manifest: Manifest) -> str:
        """Where a model is: a tier or two of them, fastest first; where hardly any of its bytes are is left out."""
        shares = dict.fromkeys(Tier, 0)
        files = {file.digest: file.size_bytes for file in manifest.files}
        for digest in files.keys() & self._away.keys():
            shares[self._away[digest].tier] += files[digest]
        if self._survey is None:
            shares[Tier.NVME] = sum(files.values()) - sum(shares.values())
        else:
            disk, staged = self._survey.disk, self._tiers.staged
            for digest, n_bytes in self._parts(manifest).items():
                shares[Tier.HOST if digest in staged else Tier.DISK if digest in disk else Tier.NVME] += n_bytes
        least = SHOWN_SHARE * sum(shares.values())
        return ", ".join(tier for tier in Tier if shares[tier] > least) or Tier.NVME.value

    def _parts(self, manifest: Manifest) -> dict[Digest, int]:
        """The blobs that a model's files are in, each with its bytes, as they were last seen."""
        found = {digest for file in manifest.files for digest in self._blobs.get(file.digest, frozenset({file.digest}))}
        return {digest: self._sizes.get(digest, 0) for digest in found}

    async def wishes(self) -> dict[str, Tier]:
        return await self._wishes.all()

    async def wish(self, ref: ModelRef, tier: Tier | None) -> str:
        """Want a model in a tier from now on, None: leave it to the forecast again; returns the model's own name.

        PEER and HUB are no wish for later: the model is let go at once, and back to stay when it is asked for. Raises
        NotFound, and BadRequest when there is no such tier or it is too small; as `Store.let_go` does.
        """
        stored = await self._store.find(ref)
        if stored is None:
            raise NotFound(f"cannot move {ref}: the store does not have it", code="model_not_found")
        model = str(stored.ref)
        if tier is Tier.PEER or tier is Tier.HUB:
            await self._let_go(stored.ref, tier, "an operator wants it so")
            await self._wishes.remove(model)
        elif tier is None:
            await self._wishes.remove(model)
        else:
            budget = (await self._look()).budgets.get(tier)
            setting = {Tier.HOST: "host_memory", Tier.DISK: "disk_dir", Tier.NVME: "nvme_budget"}[tier]
            if budget is None:
                raise BadRequest(
                    f"cannot move {model} to {tier}: this node has no such tier; set store.{setting}", param="tier"
                )
            size_bytes = sum(self._parts(stored.manifest).values())
            if size_bytes > budget:
                raise BadRequest(
                    f"cannot move {model} to {tier}: it has {format_bytes(size_bytes)} and {tier} may hold "
                    f"{format_bytes(budget)}; raise store.{setting.replace('disk_dir', 'disk_budget')}",
                    param="tier",
                )
            await self._wishes.set(model, tier)
        self._changed.set()
        return model

    # ---- planning and moving ---------------------------------------------------

    async def _look_away(self) -> None:
        """See what was let go, and tell of what has come back."""
        now = await self._store.away()
        before, self._away = self._away, now
        back = before.keys() - self._away.keys()
        for model in await self._store.models() if back else ():
            files = {file.digest: file.size_bytes for file in model.manifest.files if file.digest in back}
            if files:
                tier = before[next(iter(files))].tier
                self._metrics.tier_moved(tier, "nvme")
                self._journal.note(
                    "tier",
                    f"{model.ref} is here again, {format_bytes(sum(files.values()))} were fetched",
                    model=str(model.ref),
                    detail={"from": str(tier), "to": "nvme", "bytes": sum(files.values()), "models": [str(model.ref)]},
                )

    async def _look(self) -> Survey:
        await self._look_away()
        models = await self._store.models()
        self._blobs = await self._store.blobs_of(each.manifest for each in models)
        seen = self._survey = await self._tiers.survey()
        self._sizes = {**seen.nvme, **seen.disk}
        self._tell()
        self._place(models)
        return seen

    def _place(self, models: Iterable[StoredModel]) -> None:
        """Tell the scheduler where models are."""
        seen, known = self._survey, []
        for each in models:
            files = {file.digest: file.size_bytes for file in each.manifest.files}
            known.append(Blobs(str(each.ref), files if seen is None else self._parts(each.manifest)))
        self.placing.tell(known, seen.disk.keys() if seen else (), self._tiers.staged.keys(), self._speeds)

    def _tell(self) -> None:
        staged_bytes = self._tiers.staged_bytes
        held = {str(Tier.HOST): staged_bytes}
        if self._survey is not None:
            held |= {"nvme": sum(self._survey.nvme.values()), "disk": sum(self._survey.disk.values())}
        for tier in ELSEWHERE:
            held[tier] = sum(file.size_bytes for file in self._away.values() if file.tier is tier)
        self._metrics.tiers_hold(held)
        locked_bytes = staged_bytes if self._tiers.locked else 0
        if locked_bytes != self._told_bytes:
            self._told_bytes = locked_bytes
            self._post(TierHeld(self._now(), locked_bytes))

    async def _plan(self, room_for_bytes: int = 0) -> Plan:
        seen = await self._look()
        wishes = await self._wishes.all()
        now = self._now()
        models = [
            Kept(
                str(each.ref),
                tuple((digest, n_bytes) for digest, n_bytes in self._parts(each.manifest).items() if n_bytes),
                self._chance(str(each.ref), now),
                wishes.get(str(each.ref)),
            )
            for each in await self._store.models()
        ]
        found = pieces(models, seen.disk.keys(), self._tiers.staged.keys(), self._tiers.held | self._failed)
        self._last = found
        wanted = {digest for piece in found for digest in piece.digests}
        for digest in self._tiers.staged.keys() - wanted:  # of models that were removed
            await self._tiers.unstage(digest)
        budgets = dict(seen.budgets)
        if Tier.HOST in budgets:
            budgets[Tier.HOST] = self._tiers.host_limit_bytes
        return plan(budgets, found, self._speeds, room_for_bytes=room_for_bytes)

    def _chance(self, model: str, at: float) -> float:
        if model in self._loads.habits:
            return self._loads.chance(model, at, HORIZON_S)
        return self._scheduler.usage.forecast.chance(model, at, HORIZON_S)

    async def _make_room(self, needs_bytes: int) -> None:
        """Demote until so many bytes are free, if that can be."""
        self._in_need += 1
        self._calm.set()  # who pauses shall see that, and give up
        try:
            async with self._doing:
                await self._carry_out(await self._plan(needs_bytes), urgent=True)
                await self._let_go_for(needs_bytes)
        finally:
            self._in_need -= 1
            self._changed.set()

    async def _let_go_for(self, needs_bytes: int) -> None:
        """Let go of models that others have, the least likely to be loaded first, until so many bytes are free."""
        allowed = self.may_let_go()
        if allowed == "never":
            return
        tiers: tuple[Literal[Tier.PEER, Tier.HUB], ...] = (Tier.PEER, Tier.HUB) if allowed == "hub" else (Tier.PEER,)
        now, wishes = self._now(), await self._wishes.all()
        models = [each for each in await self._store.models() if str(each.ref) not in wishes]
        models.sort(key=lambda each: (self._chance(str(each.ref), now), str(each.ref)))
        for model in models:
            seen = await self._tiers.survey()
            if seen.budgets[Tier.NVME] - sum(seen.nvme.values()) >= needs_bytes:
                return
            for tier in tiers:
                try:
                    await self._let_go(model.ref, tier, f"{format_bytes(needs_bytes)} are needed for something else")
                    break
                except HeliosError as error:
                    log.info("model not let go", extra={"model": str(model.ref), "tier": tier, "cause": str(error)})

    async def _let_go(self, ref: ModelRef, tier: Literal[Tier.PEER, Tier.HUB], why: str) -> None:
        freed_bytes = await self._store.let_go(ref, tier)
        await self._look()
        self._metrics.tier_moved("nvme", tier)
        self._journal.note(
            "tier",
            f"{ref} was let go, {format_bytes(freed_bytes)} are free and it comes from "
            f"{'another node' if tier is Tier.PEER else 'the hub'} when it is asked for: {why}",
            model=str(ref),
            detail={"from": "nvme", "to": str(tier), "bytes": freed_bytes, "models": [str(ref)]},
        )

    async def _carry_out(self, planned: Plan, *, urgent: bool = False) -> None:
        async def pause() -> None:
            if urgent:
                return
            await self._calm.wait()
            if self._in_need:
                raise _MakeWay("cannot go on: somebody needs the room now")

        for move in planned.moves:
            if self._in_need and not urgent:
                break
            self.moving = move
            try:
                with self._traced(move):
                    await self._move(move, pause)
            except Conflict as error:  # somebody uses it, or needs the room: the next plan sees to it
                log.info("move given up", extra={"model": move.piece.name, "cause": str(error)})
            except (HeliosError, OSError) as error:
                self._failed |= move.piece.digests
                text = f"{move.piece.name} stays in {move.source}: {error}"
                log.error("move failed", extra={"model": move.piece.name, "cause": str(error)})
                self._journal.note("tier", text, model=move.piece.models[0], detail={"failed": True})
            finally:
                self.moving = None

    def _traced(self, move: Move) -> AbstractContextManager[None]:
        if self._traces is None:
            return nullcontext()
        what = {
            "helios.model": move.piece.models[0],
            "helios.from_tier": move.source.value,
            "helios.to_tier": move.target.value,
            "helios.reason": move.reason,
        }
        return self._traces.work("tier move", what)

    async def _move(self, move: Move, pause: Callable[[], Awaitable[None]]) -> None:
        began, moved_bytes = self._now(), 0
        for digest in sorted(move.piece.digests):
            if move.target is Tier.HOST:
                moved_bytes += await self._tiers.stage(digest, pause)
            elif move.source is Tier.HOST:
                moved_bytes += self._tiers.staged.get(digest, 0)
                await self._tiers.unstage(digest)
            else:
                moved_bytes += await self._tiers.move(digest, move.target, pause)
        if not moved_bytes:
            return
        took_s = max(1e-6, self._now() - began)
        await self._look()
        if Tier.HOST not in (move.source, move.target) and moved_bytes >= TELLING_BYTES:
            before = self._speeds[Tier.DISK]
            self._speeds[Tier.DISK] = Speed(before.first_s, (before.bytes_per_s + moved_bytes / took_s) / 2)
        if move.target is Tier.HOST or move.source is Tier.DISK:
            for model in move.piece.models:
                self.staged(model, began, began + took_s, moved_bytes)
        self._metrics.tier_moved(move.source, move.target)
        self._journal.note(
            "tier",
            f"{move.piece.name} went from {move.source} to {move.target}, {format_bytes(moved_bytes)} in "
            f"{took_s:.1f} s: {move.reason}",
            model=move.piece.models[0],
            detail={
                "from": str(move.source),
                "to": str(move.target),
                "bytes": moved_bytes,
                "seconds": round(took_s, 3),
                "models": list(move.piece.models),
            },
        )
