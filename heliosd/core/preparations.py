"""What was done for a model before it was started: fetched, verified, brought up from a slower tier.

A start that follows shows it on its timeline, and whoever waits for the model learns what is left of it. Seconds on the
node's clock. Values in, values out.
"""

from dataclasses import dataclass, field, replace

FETCHED = ("list", "fetch", "convert", "verify", "commit")
"""Phases of an addition, in order."""
STAGE = "stage"
"""Brought from a slower tier to a faster one."""
ASK = "ask"
"""From the end of all that to the decision to start."""
BEFORE = frozenset({*FETCHED, STAGE, ASK})
BY_BYTES = frozenset({"fetch", "convert", "verify"})
"""Phases that take the longer the more bytes there are."""
FOLLOWS_S = 10.0
"""A start that is decided later than this after its model was there, or was staged, is not on account of that."""
KEPT_MODELS = 1000
KEPT_EACH = 10
TELLING_BYTES = 1 << 20
"""Fewer bytes say nothing of a speed."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """One phase that is over."""

    phase: str
    began_at: float
    ended_at: float
    n_bytes: int = 0
    """0: it is not a matter of bytes."""


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A phase of an addition that has begun."""

    phase: str
    began_at: float
    done_bytes: int = 0
    total_bytes: int = 0
    rate_bytes_per_s: float | None = None
    """Of late, without what was here already; None: not known yet."""
    source: str = ""
    """Where it comes from: each has a speed of its own."""


@dataclass
class Preparations:
    done: dict[str, list[Prepared]] = field(default_factory=dict)
    """By model, what no start has followed yet."""
    asked: set[str] = field(default_factory=set)
    """Models that somebody asked for while they were being added: their start is on account of that."""
    under_way: dict[str, UnderWay] = field(default_factory=dict)
    speeds: dict[tuple[str, str], float] = field(default_factory=dict)
    """Bytes per second of each phase and source; the mean of the last ones, the newest counting most."""

    def told(self, model: str, now: UnderWay) -> None:
        """An addition is so far, as of `now.began_at`. A new phase ends the one before it."""
        before = self.under_way.get(model)
        if before is None:
            self.done.pop(model, None)
            self.asked.discard(model)
        elif before.phase != now.phase:
            self._end(model, now.began_at)
        else:
            now = replace(now, began_at=before.began_at)
        self.under_way[model] = now

    def wanted(self, model: str) -> None:
        """Somebody asks for the model, and waits."""
        if model in self.under_way:
            self.asked.add(model)

    def over(self, model: str, at: float) -> None:
        """The addition has ended, however."""
        self._end(model, at)
        if model not in self.asked:
            self._drop_fetched(model)

    def _drop_fetched(self, model: str) -> None:
        kept = [each for each in self.done.pop(model, []) if each.phase == STAGE]
        if kept:
            self.done[model] = kept

    def staged(self, model: str, began_at: float, ended_at: float, n_bytes: int) -> None:
        """Bytes of the model were brought to a faster tier."""
        self._add(model, Prepared(STAGE, began_at, ended_at, n_bytes))

    def before(self, model: str, at: float) -> tuple[Prepared, ...]:
        """What a start that is decided now follows, oldest first, up to the decision. Told once: for the next it is no
        news any more."""
        found = self.done.pop(model, [])
        self.asked.discard(model)
        last = max((each.ended_at for each in found), default=at - 2 * FOLLOWS_S)
        if at - last > FOLLOWS_S:
            return ()
        return (*found, *([Prepared(ASK, last, at)] if at > last else []))

    def left_s(self, model: str, at: float) -> float | None:
        """Seconds until the addition is over: the bytes that are left at the speed of late, or at that of earlier ones
        from there, and all its bytes at what verifying took before. None: nobody can tell."""
        now = self.under_way.get(model)
        if now is None or now.phase == "list":
            return None
        verify_s = self._takes_s("verify", now.source, now.total_bytes)
        if now.phase == "verify":
            return max(0.0, verify_s - (at - now.began_at))
        if now.phase == "commit":
            return 0.0
        rate = now.rate_bytes_per_s or self.speeds.get((now.phase, now.source))
        left_bytes = max(0, now.total_bytes - now.done_bytes)
        return left_bytes / rate + verify_s if rate and now.total_bytes else None

    def _takes_s(self, phase: str, source: str, n_bytes: int) -> float:
        speed = self.speeds.get((phase, source))
        return n_bytes / speed if speed else 0.0

    def _end(self, model: str, at: float) -> None:
        last = self.under_way.pop(model, None)
        if last is None:
            return
        self._add(model, Prepared(last.phase, last.began_at, at, last.total_bytes))
        took_s = at - last.began_at
        if last.phase in BY_BYTES and last.total_bytes >= TELLING_BYTES and took_s > 0:
            now = last.rate_bytes_per_s or last.total_bytes / took_s
            before = self.speeds.get((last.phase, last.source), now)
            self.speeds[last.phase, last.source] = (before + now) / 2

    def _add(self, model: str, each: Prepared) -> None:
        self.done[model] = [*self.done.get(model, [])[-(KEPT_EACH - 1) :], each]
        while len(self.done) > KEPT_MODELS:
            del self.done[next(iter(self.done))]
