"""A scheduler made of its checkpoint decides as the first one does from there on."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from heliosd.core.checkpoint import codec, restored, state_of
from heliosd.core.messages import Demand, Limits, StartReplica
from heliosd.core.scheduler import Scheduler
from tests.properties.test_scheduler import PATIENCE_S, World


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**9), at=st.floats(0.0, 1.0))
def test_it_goes_on_as_it_would_have(seed: int, at: float) -> None:
    world = World(seed, 2, failures=True)
    world.live(60)
    cut = int(at * len(world.history))
    first = Scheduler(Limits(patience_s=PATIENCE_S))
    last_replica = 0
    for event, _ in world.history[:cut]:
        last_replica += sum(isinstance(command, StartReplica) for command in first.handle(event))
    writer, reader = codec(), codec()
    text = json.dumps(state_of(first, writer))
    for shared in json.loads(json.dumps(writer.fresh)):
        reader.learn(Demand, shared)
    second = restored(json.loads(text), last_replica, reader)
    assert state_of(second, codec()) == state_of(first, codec())
    rest = world.history[cut:]
    assert [second.handle(event) for event, _ in rest] == [commands for _, commands in rest]
