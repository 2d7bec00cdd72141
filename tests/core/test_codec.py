"""Whatever the scheduler is told or answers comes back as it was, through text."""

import json
import math
from dataclasses import dataclass
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heliosd.core.codec import Codec
from heliosd.core.messages import Command, Demand, Event, Footprint, Limits, LimitsChanged, Tick
from tests.effort import examples

CLASSES = [(Event, each) for each in get_args(Event)] + [(Command, each) for each in get_args(Command)]


def through_text(union: Any, value: Any) -> Any:
    writer, reader = Codec(), Codec()
    return reader.decode(union, json.loads(json.dumps(writer.encode(union, value), allow_nan=False)))


@pytest.mark.parametrize(("union", "kind"), CLASSES, ids=[kind.__name__ for _, kind in CLASSES])
@settings(max_examples=examples(40), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_event_and_command_comes_back(union: Any, kind: type, data: st.DataObject) -> None:
    value = data.draw(st.from_type(kind))
    again = through_text(union, value)
    assert type(again) is kind
    plain = Codec().encode(union, value)
    assert Codec().encode(union, again) == plain  # sees fields, too, that `==` leaves out
    assert again == value or '"nan"' in json.dumps(plain)


def test_a_shared_value_is_written_once() -> None:
    writer, reader = Codec(shared=(Demand,)), Codec(shared=(Demand,))
    demand = Demand("m", "r", Footprint(1, 2, 3), keep_alive_s=math.inf)
    assert [writer.encode(Demand, demand), writer.encode(Demand, demand)] == [0, 0]
    (told,) = writer.fresh
    reader.learn(Demand, told)
    assert reader.decode(Demand, 0) == demand


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({"is": "Tock"}, "'Tock': expected one of RequestArrived"),
        ({"is": "Tick"}, "Tick: it lacks `at`"),
        ({"is": "Tick", "at": 1.0, "bell": 1}, "Tick: it does not know `bell`"),
        ({"is": "LimitsChanged", "at": 1.0, "limits": 3}, "Limits: 3 is no object"),
        (7, "None: expected one of"),
    ],
)
def test_what_is_wrong_is_said_by_name(plain: Any, words: str) -> None:
    with pytest.raises(ValueError, match=r"^cannot read") as caught:
        Codec().decode(Event, plain)
    assert words in str(caught.value)


def test_a_field_of_a_newer_version_gets_its_default() -> None:
    assert Codec().decode(Event, {"is": "LimitsChanged", "at": 1.0, "limits": {}}) == LimitsChanged(1.0, Limits())


def test_a_type_without_a_rule_is_named() -> None:
    @dataclass
    class Odd:
        it: complex

    with pytest.raises(TypeError, match="complex"):
        Codec().encode(Odd, Odd(1j))
    assert through_text(Event, Tick(3)) == Tick(3)
