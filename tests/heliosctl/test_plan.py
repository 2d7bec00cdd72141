"""heliosctl plan: what it asks, and what it draws."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heliosctl.exits import Failure
from heliosctl.plan import gpus_of
from heliosd.core.units import GiB
from heliosd.wire import LeftView, PlacedView, PlanDeviceView, PlanView
from tests.heliosctl.conftest import Ended
from tests.heliosctl.stand_in import StandIn

Ctl = Callable[..., Ended]
PLACED = PlacedView(
    model="org/a", devices=["gpu0"], needed_bytes=30 * GiB, kv_cache_bytes=50 * GiB, committed_bytes=78 * GiB,
    context=8192, concurrency=40,
)  # fmt: skip
DEVICE = PlanDeviceView(
    name="gpu0", gpu="H100", capacity_bytes=80 * GiB, room_bytes=78 * GiB, committed_bytes=78 * GiB, models=["org/a"]
)


def body(daemon: StandIn) -> Any:
    return next(asked[3] for asked in reversed(daemon.asked) if asked[1] == "/helios/v1/plan")


def test_models_and_gpus_are_asked_about(daemon: StandIn, ctl: Ctl, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "llama"}')
    daemon.plan = PlanView(placed=[PLACED], left=[], devices=[DEVICE], committed_ratio=0.975)
    ended = ctl("plan", "--models", f"org/a=2.5,hub:org/b,{config}", "--gpus", "2xH100, L40S", "--context", "8192")
    assert ended.code == 0
    asked = body(daemon)
    assert asked["gpus"] == ["H100", "H100", "L40S"]
    first, second, third = asked["models"]
    assert first == {"model": "org/a", "context": 8192, "worth": 2.5}
    assert second == {"hub": "org/b", "context": 8192}
    assert third == {"config": {"model_type": "llama"}, "name": tmp_path.name, "context": 8192}
    assert "gpu0 (H100): 78.0 GiB of 80.0 GiB committed" in ended.out
    assert ["org/a", "gpu0", "30.0", "GiB", "50.0", "GiB", "8,192", "40"] in [x.split() for x in ended.out.splitlines()]
    assert "committed: 97.5% of all devices" in ended.out


def test_stages_are_shown_apart(daemon: StandIn, ctl: Ctl) -> None:
    staged = PLACED.model_copy(update={"devices": ["gpu0", "gpu1", "gpu2", "gpu3"], "pipeline_parallel": 2})
    devices = [DEVICE.model_copy(update={"name": name}) for name in staged.devices]
    daemon.plan = PlanView(placed=[staged], left=[], devices=devices, committed_ratio=0.975)
    assert "gpu0+gpu1 -> gpu2+gpu3" in ctl("plan", "--models", "org/a", "--gpus", "4xH100").out


def test_what_is_left_over_ends_with_6(daemon: StandIn, ctl: Ctl) -> None:
    left = LeftView(model="org/b", reason="needs 90.0 GiB on one device")
    empty = DEVICE.model_copy(update={"models": [], "committed_bytes": 0})
    daemon.plan = PlanView(placed=[], left=[left], devices=[empty], committed_ratio=0.0)
    ended = ctl("plan", "--models", "org/b")
    assert (ended.code, "gpus" in body(daemon)) == (6, False)
    assert "- org/b: needs 90.0 GiB on one device" in ended.out


@pytest.mark.parametrize("text", ["0xH100", "65xH100", "64xH100,L4"])
def test_no_more_gpus_than_can_be_asked_about(text: str) -> None:
    with pytest.raises(Failure, match="from 1 to 64"):
        gpus_of(text)


def test_a_worth_is_a_number_above_zero(daemon: StandIn, ctl: Ctl) -> None:
    for wrong in ("org/a=much", "org/a=0", "org/a=nan"):
        ended = ctl("plan", "--models", wrong)
        assert (ended.code, "a worth above zero" in ended.err) == (2, True)
