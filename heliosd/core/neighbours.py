"""The live peers as the scheduler knows them, and whether a request is better off with one of them.

News are seconds old, so what was passed on since counts as waiting there, and a peer must promise to be quicker by more
than its news may be wrong. A request that came from a peer stays: nothing is passed on twice.
"""

from dataclasses import dataclass, field

from heliosd.core.messages import Demand, PeersChanged, RequestArrived
from heliosd.core.names import PeerName
from heliosd.core.peer_news import PeerNews
from heliosd.core.placement import Elsewhere
from heliosd.core.units import format_bytes

HOP_S = 0.1
"""What passing a request on is taken to cost."""
GAIN_S = 3.0
"""A peer must be expected to be quicker by so much: its news may be as old."""
UNKNOWN_WAIT_S = 30.0
"""What a wait is taken to be whose end nobody can tell: for foreign memory, or for what an older request waits for."""


@dataclass
class Neighbours:
    """Written by the scheduler alone."""

    holds: dict[PeerName, tuple[str, ...]] = field(default_factory=dict)
    news: dict[PeerName, PeerNews] = field(default_factory=dict)
    sent: dict[PeerName, int] = field(default_factory=dict)
    """Requests passed on to each since it last told something else."""

    def told(self, event: PeersChanged) -> None:
        self.holds = dict(event.holds)
        news = {each.peer: each for each in event.news}
        self.sent = {peer: count for peer, count in self.sent.items() if news.get(peer) == self.news.get(peer)}
        self.news = news

    def holders(self, model: str) -> tuple[PeerName, ...]:
        """Who holds the model."""
        return tuple(peer for peer, held in self.holds.items() if model in held)

    def passed(self, peer: PeerName) -> None:
        """A request was passed on."""
        self.sent[peer] = self.sent.get(peer, 0) + 1

    def better(
        self, request: RequestArrived, demand: Demand, why: str, wait_s: float, reload_s: float, lease_s: float
    ) -> Elsewhere | None:
        """The peer that serves the request soonest, if that is soon enough.

        `wait_s` is what it would wait here, infinite when it cannot be served; `why` says what for. A start takes
        `reload_s`, a request `lease_s`. The queue there is taken to be served one by one, since nobody knows of whom.
        """
        if request.forwarded:
            return None
        best: tuple[float, int, PeerName, str] | None = None
        for peer, news in self.news.items():
            if request.model not in self.holds.get(peer, ()):
                continue
            queue_s = (news.queue_length + self.sent.get(peer, 0)) * lease_s
            if demand.model in news.ready:
                there_s, what = queue_s + HOP_S, f"{demand.model} is ready"
            elif demand.device_count == 1 and demand.per_device.total_bytes <= news.free_bytes:
                there_s = queue_s + reload_s + HOP_S
                what = f"{format_bytes(news.free_bytes)} are free"
            else:
                continue
            turn = sum(request.ticket.encode()) + sum(peer.encode())
            choice = round(there_s, 1), turn % max(1, len(self.news)), peer, what
            best = choice if best is None else min(best, choice)
        if best is None or best[0] + GAIN_S > wait_s:
            return None
        there_s, _, peer, what = best
        here = "it cannot be served here" if wait_s == float("inf") else f"it would wait about {wait_s:.1f} s here"
        return Elsewhere(peer, f"{here} ({why}), and about {there_s:.1f} s on {peer}, where {what}")
