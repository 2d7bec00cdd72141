"""A peer serves a request where that is clearly sooner, and no peer is flooded for old news."""

from dataclasses import replace

from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.messages import (
    Demand,
    DevicesFound,
    Footprint,
    Forward,
    Limits,
    PeersChanged,
    ReplicaBecameReady,
    RequestArrived,
    StartReplica,
)
from heliosd.core.names import DeviceId, PeerName, ReplicaId, Ticket
from heliosd.core.neighbours import GAIN_S, HOP_S, Neighbours
from heliosd.core.peer_news import PeerNews
from heliosd.core.placement import Elsewhere
from heliosd.core.scheduler import Scheduler
from heliosd.core.units import GiB

B, C = PeerName("b"), PeerName("c")
QWEN = Demand("qwen", "rev", Footprint(60 * GiB, 0, 0))
FOREVER = float("inf")


def told(*news: PeerNews, holds: tuple[str, ...] = ("qwen",)) -> Neighbours:
    neighbours = Neighbours()
    neighbours.told(PeersChanged(0.0, tuple((each.peer, holds) for each in news), news))
    return neighbours


def better(neighbours: Neighbours, wait_s: float, demand: Demand = QWEN, ticket: str = "t") -> Elsewhere | None:
    request = RequestArrived(0.0, Ticket(ticket), demand.model, demand)
    return neighbours.better(request, demand, "it is full", wait_s, reload_s=20.0, lease_s=5.0)


def test_a_ready_model_is_worth_a_hop_and_old_news_a_margin() -> None:
    ready = told(PeerNews(B, ("qwen",), 0, 0))
    assert better(ready, HOP_S + GAIN_S - 0.01) is None
    found = better(ready, HOP_S + GAIN_S + 0.01)
    assert found is not None
    assert found.peer == "b"
    assert found.reason == "it would wait about 3.1 s here (it is full), and about 0.1 s on b, where qwen is ready"


def test_room_is_worth_a_start_and_a_line_what_it_takes() -> None:
    room = told(PeerNews(B, (), 60 * GiB, 2))
    assert better(room, 20.0 + 2 * 5.0 + GAIN_S) is None
    assert better(room, 20.0 + 2 * 5.0 + GAIN_S + 0.2) is not None
    assert better(told(PeerNews(B, (), 59 * GiB, 0)), FOREVER) is None


def test_the_free_memory_of_one_device_says_nothing_of_several() -> None:
    assert better(told(PeerNews(B, (), 70 * GiB, 0)), FOREVER, replace(QWEN, device_count=2)) is None
    assert better(told(PeerNews(B, ("qwen",), 0, 0)), FOREVER, replace(QWEN, device_count=2)) is not None


def test_a_peer_without_the_model_is_not_asked() -> None:
    assert better(told(PeerNews(B, ("qwen",), 80 * GiB, 0), holds=("llama",)), FOREVER) is None


def test_equal_peers_share_the_requests() -> None:
    equal = told(PeerNews(B, ("qwen",), 0, 0), PeerNews(C, ("qwen",), 0, 0))
    chosen = {found.peer for number in range(9) if (found := better(equal, FOREVER, ticket=f"t{number}"))}
    assert chosen == {"b", "c"}


def test_what_was_passed_on_waits_there_until_the_peer_tells_something_else() -> None:
    news = PeerNews(B, ("qwen",), 0, 0)
    neighbours = told(news)
    neighbours.passed(B)
    neighbours.passed(B)
    assert better(neighbours, 10.0) is None
    neighbours.told(PeersChanged(1.0, ((B, ("qwen",)), (C, ())), (news,)))
    assert better(neighbours, 10.0) is None, "b said nothing new"
    neighbours.told(PeersChanged(1.0, ((B, ("qwen",)),), (replace(news, queue_length=1),)))
    assert better(neighbours, 10.0) is not None


def test_who_waits_behind_gets_the_room_of_a_request_that_goes_elsewhere() -> None:
    scheduler = Scheduler(Limits(safety_ratio=0.0))
    llama = replace(QWEN, model="llama", per_device=Footprint(50 * GiB, 0, 0))
    small = replace(QWEN, model="small", per_device=Footprint(20 * GiB, 0, 0))
    scheduler.handle(DevicesFound(0.0, (Device(DeviceId("g0"), DeviceKind.SIMULATED, "card", 80 * GiB),)))
    scheduler.handle(RequestArrived(0.0, Ticket("t1"), "llama", llama))
    scheduler.handle(ReplicaBecameReady(1.0, ReplicaId("r1"), llama.per_device))
    scheduler.handle(RequestArrived(2.0, Ticket("t2"), "qwen", QWEN))
    held = scheduler.handle(RequestArrived(2.0, Ticket("t3"), "small", small))
    assert not any(isinstance(each, StartReplica) for each in held), "t2 waits for g0"
    news = PeerNews(B, ("qwen",), 0, 0)
    commands = scheduler.handle(PeersChanged(2.5, ((B, ("qwen",)),), (news,)))
    assert [each.ticket for each in commands if isinstance(each, Forward)] == ["t2"]
    assert [each.demand.model for each in commands if isinstance(each, StartReplica)] == ["small"]
