"""The stories as people read them: whole sentences with the arithmetic in them."""

from heliosctl.explain_words import story
from heliosd.core.units import GiB
from heliosd.wire import (
    AppetiteView,
    BarredView,
    EventView,
    Explanation,
    ModelStory,
    ReplicaStory,
    RequestStory,
    RivalView,
    StartView,
    StepView,
    WorthView,
)
from tests.heliosctl.samples import ESTIMATE, MEASURED, PREDICTED, replica

START = StartView(replica="r1", reason="start org/small on gpu0: needs 1.6 GiB, 5.8 GiB free on gpu0",
                  devices=["gpu0"], began_at=1e6, took_s=4.0, phases={"fork": 0.04, "load": 3.9})  # fmt: skip
BARRED = BarredView(devices=["gpu1"], failures=2, retry_in_s=7.0, cause="no\nkernel")
APPETITE = AppetiteView(
    asked_per_minute=2.0, reuse_ratio=0.86, horizon_s=60.0, reload_s=4.0, lease_s=2.5, waiting=3, barred=[BARRED]
)
DIED = EventView(id=9, at=1e6, kind="exited", message="r0 died: no kernel")


def words(**stories: object) -> str:
    return story(Explanation(subject="it", events=[], **stories))


def test_a_request() -> None:
    steps = [
        StepView(after_s=0.0, kind="hold", reason="r1 is starting", position=2, eta_s=3.5),
        StepView(after_s=4.2, kind="grant", reason="r1 is ready"),
    ]
    told = {"model": "org/small", "arrived_at": 1e6, "waited_s": 4.2, "steps": steps}
    served = words(request=RequestStory(**told, state="over", served_s=1.5, replica="r1", waited_for=START))
    assert "it asked for org/small at" in served and "waited 4.2 s; r1 worked on it for 1.5 s" in served
    assert "+0 ms  hold: r1 is starting (2 before it; in 3.5 s, as it looked)" in served
    assert "waited for the start of r1" in served and "ready after 4.0 s: fork 40 ms, load 3.9 s" in served
    waiting = words(request=RequestStory(**told, state="waiting", position=1, eta_s=None))
    assert "has waited 4.2 s so far" in waiting and "now (1 before it; nobody can tell when)" in waiting
    refused = words(request=RequestStory(**told, state="refused", code="engine_failed", cause="Traceback\nno kernel"))
    assert "was refused (engine_failed)" in refused and "the engine said: no kernel" in refused


def test_a_model() -> None:
    it = words(model=ModelStory(estimate=ESTIMATE, replicas=[replica()], appetite=APPETITE, failure=DIED))
    assert "256.0 MiB weights + 1.0 GiB KV cache + 320.0 MiB overhead = 1.6 GiB on one device" in it
    assert "fits: needs 1.6 GiB, 5.8 GiB free on gpu0" in it
    assert "r1 is ready on gpu0, 0 leases; predicted 1.6 GiB, measured 1.5 GiB (-1.2%)" in it
    assert "asked for 2 times a minute: 86% that somebody asks within 1m 00s; 3 wait" in it
    assert "failed 2 times in a row on gpu1, not tried for 7.0 s: kernel" in it
    assert "last failure: r0 died: no kernel" in it


def test_a_model_whose_graphs_were_chosen_and_where_it_lies() -> None:
    few = ESTIMATE.model_copy(update={"notes": ["CUDA graphs of 7 batch sizes up to 32 instead of 51"]})
    known = APPETITE.model_copy(update={"tier": "disk", "read_s": 40.0, "at_once": 16})
    it = words(model=ModelStory(estimate=few, replicas=[], appetite=known))
    assert "  CUDA graphs of 7 batch sizes up to 32 instead of 51\n" in it
    assert "  lies in disk: reading it from there takes 40.0 s\n" in it
    assert "  at most 16 requests at once are expected\n" in it


def test_a_model_in_stages() -> None:
    staged = ESTIMATE.model_copy(update={"device_count": 4, "pipeline_parallel": 2})
    assert "= 1.6 GiB on each of 4 devices in 2 pipeline stages" in words(
        model=ModelStory(estimate=staged, replicas=[])
    )


def test_a_replica() -> None:
    worth = WorthView(loss_s=3.44, slower_s=4.0, frees_bytes=2 * GiB, sleeps=False, rank=2, of=3,
                      before=[RivalView(replica="r9", model="org/cold", loss_s=0.1, frees_bytes=GiB)])  # fmt: skip
    known = {"model": "org/small", "start": START, "predicted": PREDICTED, "measured": MEASURED}
    it = words(replica=ReplicaStory(**known, running=replica(), appetite=APPETITE, worth=worth))
    assert "it of org/small is ready on gpu0 with 0 leases" in it
    assert "-20.0 MiB" in it and "+0 B" in it
    assert "free 2.0 GiB on each device and cost 3.4 s of waiting: 86% that it is asked for · 4.0 s longer" in it
    assert "it is number 2 of 3 to make room" in it and "before it r9 of org/cold: 100 ms for 1.0 GiB" in it
    gone = words(replica=ReplicaStory(model="org/small", ended=DIED))
    assert "has ended" in gone and "r0 died: no kernel" in gone
    assert words() == ""
