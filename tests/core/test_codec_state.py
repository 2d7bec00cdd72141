"""A scheduler that was written and read again decides as the first one does from there on."""

import json

import pytest

from heliosd.core.codec import Codec
from heliosd.core.scheduler import Scheduler
from tests.history import history


@pytest.mark.parametrize("seed", range(12))
def test_it_goes_on_as_it_would_have(seed: int) -> None:
    told = history(60, seed)
    cut = len(told) * seed // 12
    first = Scheduler()
    for event in told[:cut]:
        first.handle(event)
    text = json.dumps(Codec().encode(Scheduler, first))
    second = Codec().decode(Scheduler, json.loads(text))
    assert json.dumps(Codec().encode(Scheduler, second)) == text
    assert [second.handle(event) for event in told[cut:]] == [first.handle(event) for event in told[cut:]]


def test_what_is_one_thing_stays_one() -> None:
    scheduler = Codec().decode(Scheduler, Codec().encode(Scheduler, Scheduler()))
    assert scheduler.pool.ledger is scheduler.ledger
    assert scheduler.pool.usage is scheduler.usage
    scheduler.number_after(6)
    again = Codec().decode(Scheduler, Codec().encode(Scheduler, scheduler))
    assert [next(again.pool.numbers), next(scheduler.pool.numbers)] == [7, 7]
