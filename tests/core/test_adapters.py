"""The room for adapters: what the operator left open is chosen, and another room is another engine."""

from dataclasses import replace

import pytest

from heliosd.core.adapters import AdapterRoom, room_for, with_room
from heliosd.core.messages import Demand, Footprint


@pytest.mark.parametrize(
    ("ranks", "engine_args", "room"),
    [
        ([], {}, None),
        ([8], {}, AdapterRoom(4, 16)),
        ([8, 17], {}, AdapterRoom(4, 32)),
        ([200], {}, AdapterRoom(4, 256)),
        ([], {"enable_lora": True}, AdapterRoom(4, 16)),
        ([64], {"enable_lora": False}, None),
        ([8], {"max_loras": 2, "max_lora_rank": 128}, AdapterRoom(2, 128)),
        ([64], {"max_lora_rank": 8}, AdapterRoom(4, 8)),
        ([8], {"max_loras": True, "max_lora_rank": -1}, AdapterRoom(4, 16)),
    ],
)
def test_room(ranks: list[int], engine_args: dict[str, object], room: AdapterRoom | None) -> None:
    assert room_for(ranks, engine_args) == room


def test_the_operators_arguments_stand() -> None:
    asked = {"max_loras": 2, "seed": 7}
    assert with_room(asked, None) == asked
    assert with_room(asked, AdapterRoom(2, 16)) == {"enable_lora": True, "max_loras": 2, "max_lora_rank": 16, "seed": 7}


def test_another_room_is_served_by_another_replica() -> None:
    bare = Demand("m", "rev", Footprint(1, 1, 1))
    small, large = replace(bare, adapters=AdapterRoom(4, 16)), replace(bare, adapters=AdapterRoom(4, 64))
    assert len({bare.key, small.key, large.key}) == 3
    assert replace(small, per_device=Footprint(2, 2, 2)).key == small.key
