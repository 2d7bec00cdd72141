"""The stories that explain tells: put together of the journal's lines and of what the scheduler knows now."""

from typing import Any

from heliosd.core.names import ReplicaId
from heliosd.explain import Appetite, Barred, Facts, Rival, Waits, Worth
from heliosd.wire import Explanation
from tests.api.world import World

MEASURED = {"weights_bytes": 10, "kv_cache_bytes": 20, "overhead_bytes": 4}
PREDICTED = {"weights_bytes": 10, "kv_cache_bytes": 20, "overhead_bytes": 5}
APPETITE = Appetite(3.0, 0.95, 60.0, 12.0, None, 2.0, 1, (Barred(("g1",), 2, 7.0, "no kernel"),))


async def explained(it: World, subject: str) -> Explanation:
    await it.journal.flushed()
    async with it.local.get(f"/helios/v1/explain/{subject}") as response:
        assert response.status == 200, await response.text()
        return Explanation.model_validate(await response.json())


def started(it: World, replica: str = "r7") -> None:
    detail: dict[str, Any] = {"devices": ["g0"], "predicted": PREDICTED, "revision": "b" * 64}
    it.journal.note("start", "start tiny on g0: 9 free", replica=replica, model="tiny", detail=detail)


def ready(it: World, replica: str = "r7") -> None:
    detail = {"measured": MEASURED, "phases": {"weights": 1.5}}
    it.journal.note("ready", f"{replica} is ready", replica=replica, model="tiny", detail=detail)


async def test_a_request_that_waited_for_a_start(it: World) -> None:
    line = {"position": 2, "eta_s": 4.5}
    it.journal.note("hold", "r7 is starting", ticket="t-1", model="tiny", detail=line)
    started(it)
    ready(it)
    it.journal.note("grant", "r7 is ready", ticket="t-1", replica="r7", model="tiny")
    for _ in range(600):  # more than is shown: the start is found all the same
        it.journal.note("grant", "r7 is ready", ticket="t-other", replica="r7", model="tiny")
    it.journal.note("released", "the request is over", ticket="t-1")
    story = (await explained(it, "t-1")).request
    assert story is not None and story.waited_for is not None and story.served_s is not None
    assert (story.state, story.model, story.replica) == ("over", "tiny", "r7")
    assert [step.kind for step in story.steps] == ["hold", "grant", "released"]
    assert (story.steps[0].position, story.steps[0].eta_s, story.steps[0].after_s) == (2, 4.5, 0.0)
    assert (story.waited_for.replica, story.waited_for.phases) == ("r7", {"weights": 1.5})
    assert 0 <= story.waited_s <= story.steps[2].after_s


async def test_a_request_that_found_its_replica_ready_waited_for_no_start(it: World) -> None:
    started(it)
    ready(it)
    it.journal.note("grant", "r7 is ready", ticket="t-1", replica="r7", model="tiny")
    story = (await explained(it, "t-1")).request
    assert story is not None
    assert (story.state, story.waited_for, story.waited_s) == ("served", None, 0.0)


async def test_requests_that_wait_were_refused_or_gave_up(it: World) -> None:
    for ticket in ("t-1", "t-2", "t-3"):
        it.journal.note("hold", "busy", ticket=ticket, model="tiny")
    why = {"code": "engine_failed", "retry_after_s": 2.0, "cause": "no kernel"}
    it.journal.note("refuse", "cannot start tiny", ticket="t-2", model="tiny", detail=why)
    it.journal.note("released", "the request is over", ticket="t-2")
    it.journal.note("released", "the request is over", ticket="t-3")
    it.node.known["t-1"] = Facts(Waits("tiny", 8.0, "busy", 3, None), None, None)
    waiting, refused, gone = [(await explained(it, ticket)).request for ticket in ("t-1", "t-2", "t-3")]
    assert waiting and (waiting.state, waiting.waited_s, waiting.position) == ("waiting", 8.0, 3)
    assert refused and (refused.state, refused.code, refused.cause) == ("refused", "engine_failed", "no kernel")
    assert gone and (gone.state, gone.replica) == ("over", None)


async def test_a_model(it: World) -> None:
    it.journal.note("exited", "r6 died: no kernel", model="tiny", replica="r6", detail={"cause": "no kernel"})
    it.node.known["tiny"] = Facts(None, APPETITE, None)
    story = (await explained(it, "smol")).model
    assert story is not None and story.estimate and story.appetite and story.failure
    assert (story.estimate.verdict, story.estimate.reason) == ("fits", "31 GiB are free")
    assert [replica.id for replica in story.replicas] == ["r-tiny"]
    assert (story.appetite.reuse_ratio, story.appetite.barred[0].failures) == (0.95, 2)
    assert story.failure.message == "r6 died: no kernel"
    unasked = (await explained(it, "org/other")).model
    assert unasked is not None and (unasked.appetite, unasked.failure, unasked.estimate) == (None, None, None)


async def test_a_replica_that_runs_and_one_that_ended(it: World) -> None:
    rival = Rival(ReplicaId("r8"), "org/other", 0.5, 3)
    it.node.known["r-tiny"] = Facts(None, APPETITE, Worth(11.4, 12.0, 34, True, 2, 2, None, (rival,)))
    started(it, "r-tiny")
    ready(it, "r-tiny")
    started(it)
    it.journal.note("exited", "r7 ended", replica="r7", model="tiny")
    running, ended = [(await explained(it, replica)).replica for replica in ("r-tiny", "r7")]
    assert running and running.running and running.worth and running.start
    assert (running.worth.rank, running.worth.before[0].replica, running.start.took_s is None) == (2, "r8", False)
    assert running.predicted == running.running.predicted
    assert ended and ended.ended and ended.start and ended.predicted
    assert (ended.running, ended.worth, ended.measured) == (None, None, None)
    assert (ended.model, ended.predicted.total_bytes, ended.start.took_s) == ("tiny", 35, None)
