"""Those who wait for a lease: what they are told meanwhile, and how they get it, or the error that says why not."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from heliosd.core.causes import wait_cause
from heliosd.core.messages import Forward, Grant, Hold, Refuse
from heliosd.core.names import ReplicaId, Ticket
from heliosd.engines.engine import Engine
from heliosd.errors import EngineFailed, HeliosError
from heliosd.lease import Lease, LocalLease, PeerLease, refusal_error
from heliosd.telemetry.metrics import Metrics


class Answers:
    """`engine` finds the engine of a replica, `now` is the node's clock."""

    def __init__(
        self, engine: Callable[[ReplicaId], Engine | None], metrics: Metrics, now: Callable[[], float]
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._now = now
        self._waiting: dict[Ticket, asyncio.Future[Lease]] = {}
        self.models: dict[str, str] = {}
        """What is asked for, by ticket."""
        self._told: dict[Ticket, Callable[[Hold], None]] = {}
        self._held: dict[Ticket, tuple[str, float]] = {}
        """What each waits for, as a word of `causes.WAITS`, and since when."""

    @contextmanager
    def expected(
        self, ticket: Ticket, model: str, told: Callable[[Hold], None] | None
    ) -> Iterator[asyncio.Future[Lease]]:
        """For as long as somebody waits for the answer, or uses the lease; the future is to be given to `wait`."""
        answer: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = answer
        self.models[ticket] = model
        if told is not None:
            self._told[ticket] = told
        try:
            yield answer
        finally:
            del self._waiting[ticket], self.models[ticket]
            self._told.pop(ticket, None)
            self._count(ticket)

    async def wait(self, answer: asyncio.Future[Lease], since: float) -> Lease:
        """The answer; the wait since then is counted under what became of it."""
        outcome = "left"
        try:
            lease = await answer
            outcome = "forwarded" if isinstance(lease, PeerLease) else "granted"
            return lease
        except HeliosError as error:
            outcome = error.code
            raise
        finally:
            self._metrics.waited(outcome, self._now() - since)

    def give(self, command: Grant | Forward | Refuse | Hold) -> None:
        """Tell who waits what the scheduler decided. Harmless when nobody waits any more."""
        ticket = command.ticket
        self._count(ticket)
        match command:
            case Grant(replica=replica):
                self._answer(ticket, self._lease(ticket, replica))
            case Forward(peer=peer):
                self._answer(ticket, PeerLease(ticket, self.models.get(ticket, ""), peer))
            case Refuse():
                self._answer(ticket, refusal_error(command))
            case Hold(reason=reason):
                if ticket in self._waiting:
                    self._held[ticket] = wait_cause(reason), self._now()
                if tell := self._told.get(ticket):
                    tell(command)

    def _count(self, ticket: Ticket) -> None:
        """What it was last told to wait for is over."""
        if held := self._held.pop(ticket, None):
            self.spent(held[0], self._now() - held[1])

    def spent(self, reason: str, seconds: float) -> None:
        """A request waited so long for this, a word of `causes.WAITS`."""
        self._metrics.reasons.waited(reason, seconds)

    def _lease(self, ticket: Ticket, replica: ReplicaId) -> LocalLease | EngineFailed:
        engine = self._engine(replica)
        model = self.models.get(ticket, "")
        if engine is None:  # it died in the same moment; its exit is in the inbox
            return EngineFailed(f"cannot use {replica} of {model}: it has just ended; ask again", replica=replica)
        return LocalLease(ticket, model, replica, engine)

    def _answer(self, ticket: Ticket, answer: Lease | HeliosError) -> None:
        future = self._waiting.get(ticket)
        if future is None or future.done():
            return
        if isinstance(answer, HeliosError):
            future.set_exception(answer)
        else:
            future.set_result(answer)
