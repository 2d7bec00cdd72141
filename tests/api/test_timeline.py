"""The start of a replica over HTTP."""

import json

from heliosd.core.lifecycle import State
from heliosd.core.timeline import Span, Timeline, as_rows
from heliosd.lease import StartSoFar
from heliosd.wire import TimelineView
from tests.api.world import World

SPANS = (Span("fork", 0.0, 0.5), Span("weights", 0.5, 3.0))


async def shown(it: World, subject: str) -> TimelineView:
    async with it.local.get(f"/helios/v1/replicas/{subject}/timeline") as response:
        assert response.status == 200
        return TimelineView.model_validate(await response.json())


async def test_a_replica_that_starts_tells_what_is_done_and_what_is_expected(it: World) -> None:
    expected = (("fork", 0.4), ("weights", 2.0))
    it.node.starts["r-tiny"] = StartSoFar(Timeline(SPANS[:1], 1.0), True, 1.0, expected, 1.5)
    for subject in ("r-tiny", "tiny"):
        view = await shown(it, subject)
        assert (view.replica, view.state, view.total_s, view.other_s, view.left_s) == (
            "r-tiny",
            "starting",
            1,
            0.5,
            1.5,
        )
        assert view.expected == dict(expected)


async def test_of_one_that_has_ended_the_journal_tells(it: World) -> None:
    detail = {"timeline": as_rows(SPANS), "total_s": 3.0, "phases": {}}
    it.journal.note("start", "start org/old", replica="r3", model="org/old")
    it.journal.note("ready", "r3 is ready", replica="r3", model="org/old", detail=detail)
    word = {"timeline": as_rows([Span("first_token", 3.0, 3.25)])}
    it.journal.note("first_token", "r3 spoke", replica="r3", model="org/old", detail=word)
    it.journal.note("exited", "r3 ended", replica="r3", model="org/old")
    await it.journal.flushed()
    for subject in ("r3", "org/old"):
        view = await shown(it, subject)
        assert (view.replica, view.state, view.total_s) == ("r3", "ended", 3.25)
        assert [span.phase for span in view.spans] == ["fork", "weights", "first_token"]
    async with it.local.get("/helios/v1/replicas/nobody/timeline") as response:
        assert (response.status, (await response.json())["error"]["code"]) == (404, "replica_not_found")


async def test_a_load_that_is_watched_ends_with_the_replica_or_the_error(it: World) -> None:
    it.node.starts["r-tiny"] = StartSoFar(Timeline(SPANS, 3.0), False, 3.0)
    async with it.local.post("/helios/v1/replicas", json={"model": "tiny", "stream": True}) as response:
        told = events(await response.text())
    assert [kind for kind, _ in told] == ["timeline", "done"]
    assert told[0][1]["spans"][1]["phase"] == "weights" and told[1][1]["id"] == "r-tiny"
    async with it.local.post("/helios/v1/replicas", json={"model": "nobody", "stream": True}) as response:
        assert events(await response.text())[-1][1]["error"]["code"] == "model_not_found"


def events(text: str) -> list[tuple[str, dict]]:
    frames = [frame.split("\n") for frame in text.split("\n\n") if frame.startswith("event: ")]
    return [(lines[0].removeprefix("event: "), json.loads(lines[1].removeprefix("data: "))) for lines in frames]


async def test_the_first_answer_of_a_replica_is_told_to_the_node(it: World) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
    async with it.local.post("/v1/chat/completions", json=body) as response:
        assert response.status == 200
        await response.read()
    ((replica, first_byte_s),) = it.node.answers
    assert replica == "r-tiny" and first_byte_s >= 0


async def test_the_list_of_replicas_tells_how_far_a_start_is(it: World) -> None:
    it.node.engines["tiny"].state = State.STARTING
    it.node.starts["r-tiny"] = StartSoFar(Timeline(SPANS, 3.0), True, 3.0, (("warm_up", 2.0),), 2.0)
    async with it.local.get("/helios/v1/replicas") as response:
        view = next(row for row in (await response.json())["replicas"] if row["id"] == "r-tiny")
    assert (view["phases"], view["left_s"]) == ({"fork": 0.5, "weights": 2.5}, 2.0)
