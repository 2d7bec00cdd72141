"""Models on their way into the store: who asks for one that is not here yet waits for it, and is told how long.

What was fetched and verified for a request, and what was brought up from a slower tier, is on the timeline of the start
that follows.
"""

import asyncio
from collections.abc import Callable

from heliosd.core.messages import Hold, RefusalCode
from heliosd.core.names import ModelRef, Ticket
from heliosd.core.preparations import Preparations, UnderWay
from heliosd.core.snapshot import Waiting
from heliosd.core.units import format_bytes
from heliosd.core.usage import Usage, usual_load_s
from heliosd.errors import Unavailable
from heliosd.state.journal import Journal
from heliosd.store.sources.source import Progress
from heliosd.store.stored import Addition

TELL_S = 1.0
"""Who waits is told anew so often at most, unless another phase begins."""


class Arrivals:
    """`watch` is told of additions, on the event loop."""

    def __init__(self, usage: Usage, journal: Journal, now: Callable[[], float]) -> None:
        self.preparations = Preparations()
        self._usage = usage
        self._journal = journal
        self._now = now
        self._moved = asyncio.Event()
        self._asking: dict[Ticket, tuple[str, float]] = {}
        """Who waits: the model, and since when."""

    def waiting(self, after: int) -> tuple[Waiting, ...]:
        """Who waits for a model that is not here yet, to be shown behind `after` others."""
        return tuple(
            Waiting(ticket, model, since, self._reason(model, now), after + place, self.ready_in_s(model, now))
            for place, (ticket, (model, since)) in enumerate(self._asking.items())
            if (now := self.preparations.under_way.get(model)) is not None
        )

    def watch(self, ref: ModelRef, wanted: Addition, progress: Progress | None) -> None:
        """An addition is so far; None: it has ended."""
        if progress is None:
            self.preparations.over(str(ref), self._now())
        else:
            total, rate = progress.total_bytes or 0, progress.rate_bytes_per_s
            so_far = UnderWay(progress.phase, self._now(), progress.done_bytes, total, rate, wanted.source)
            self.preparations.told(str(ref), so_far)
        self._moved.set()
        self._moved = asyncio.Event()

    def before(self, model: str, at: float) -> list[tuple[str, float, float]]:
        """Phases, each with its begin and end, that a start decided now follows."""
        return [(each.phase, each.began_at, each.ended_at) for each in self.preparations.before(model, at)]

    def coming(self, ref: ModelRef) -> bool:
        return str(ref) in self.preparations.under_way

    async def until_there(
        self, ref: ModelRef, ticket: Ticket, deadline_at: float, tell: Callable[[Hold], None] | None
    ) -> None:
        """Wait until the addition has ended, be it well or not; at once when there is none.

        Raises Unavailable when the deadline passes first.
        """
        model = str(ref)
        self.preparations.wanted(model)
        self._asking[ticket] = model, self._now()
        try:
            async with asyncio.timeout_at(deadline_at):
                await self._follow(model, ticket, tell or (lambda hold: None))
        except TimeoutError:
            left = self.preparations.under_way.get(model)
            why = self._reason(model, left) if left else "it has just come"
            text = f"cannot serve {model} in time: {why}; ask again later, or wait longer (queue.timeout_s)"
            code, after_s = RefusalCode.DEADLINE, self.ready_in_s(model, left) if left else None
            detail: dict[str, object] = {"code": code, "retry_after_s": after_s, "cause": None}
            self._journal.note("refuse", text, ticket=ticket, model=model, detail=detail)
            raise Unavailable(text, code=code, retry_after_s=after_s) from None
        except asyncio.CancelledError:
            self._journal.note("released", "the request is over", ticket=ticket)
            raise
        finally:
            del self._asking[ticket]

    async def _follow(self, model: str, ticket: Ticket, tell: Callable[[Hold], None]) -> None:
        phase, told_at = "", 0.0
        while (now := self.preparations.under_way.get(model)) is not None:
            if now.phase != phase or self._now() - told_at >= TELL_S:
                hold = Hold(ticket, self._reason(model, now), 0, self.ready_in_s(model, now))
                if now.phase != phase:
                    line: dict[str, object] = {"position": 0, "eta_s": hold.eta_s}
                    self._journal.note("hold", hold.reason, ticket=ticket, model=model, detail=line)
                phase, told_at = now.phase, self._now()
                tell(hold)
            await self._moved.wait()

    def ready_in_s(self, model: str, now: UnderWay) -> float | None:
        """Seconds until it serves: what is left of the addition, and a start of a model of so many bytes."""
        left_s = self.preparations.left_s(model, self._now())
        if left_s is None:
            return None
        like = self._usage.starts.expected(model, now.total_bytes, (), self._usage.places)
        return left_s + (like.total_s if like else usual_load_s(now.total_bytes))

    @staticmethod
    def _reason(model: str, now: UnderWay) -> str:
        doing = {
            "list": "is looked for",
            "convert": "is being converted",
            "verify": "is being verified",
            "commit": "is here",
        }
        text = f"{model} {doing.get(now.phase, 'is being fetched')}"
        if now.phase == "fetch" and now.total_bytes:
            text += f": {format_bytes(now.done_bytes)} of {format_bytes(now.total_bytes)}"
        return text
