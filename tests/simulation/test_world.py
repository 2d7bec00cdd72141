"""The simulated node: time, money and memory add up, and the scheduler in it is the daemon's own."""

from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.names import DeviceId
from heliosd.core.units import GiB
from heliosd.simulation.baselines import POLICIES
from heliosd.simulation.fleet import Fleet, model_of
from heliosd.simulation.trace import Asked
from heliosd.simulation.world import Speeds

SPEEDS = Speeds(prefill_tokens_per_s=1000, memory_bytes_per_s=1e18, most_tokens_per_s=10, stop_s=1.0)


def fleet(devices: int = 1, gib: int = 40) -> Fleet:
    """Three models of 20 GiB, loaded in 5 s; a device holds one or three of them."""
    names = ("a", "b", "c")
    return Fleet(
        tuple(Device(DeviceId(f"g{at}"), DeviceKind.SIMULATED, "H100", gib * GiB) for at in range(devices)),
        {name: model_of(name, 18 * GiB, GiB, GiB, load_s=5.0) for name in names},
    )


def asked(at_s: float, model: str, prompt: int = 1000, output: int = 20) -> Asked:
    return Asked(at_s, model, prompt, output)


def test_a_first_token_takes_the_start_and_the_prompt() -> None:
    found = POLICIES["helios"](fleet(), [asked(0, "a"), asked(100, "a")], SPEEDS)
    assert found.first_token_s == [6.0, 1.0]
    assert (found.answered, found.starts, found.swap_s, found.lost, found.doubled) == (2, 1, 5.0, 0, 0)
    assert found.span_s == 103.0, "a second for the prompt, two for twenty tokens"
    assert found.device_s == 103.0
    assert found.promised_byte_s == 103.0 * 20 * GiB


def test_an_unknown_model_is_refused_and_a_late_answer_too() -> None:
    trace = [asked(0, "a", output=10_000), asked(1, "b"), asked(2, "no such")]
    found = POLICIES["helios"](fleet(gib=30), trace, SPEEDS)
    assert found.refused == {"model_not_found": 1, "queue_timeout": 1}
    assert found.answered == 1


def test_what_is_slow_to_start_stays_where_lru_would_send_it_away() -> None:
    """Three models by turns, two of which fit: the longest unused is always the next. `a` takes ten times as long."""
    there = fleet(gib=42)
    slow = Fleet(there.devices, {**there.models, "a": model_of("a", 18 * GiB, GiB, GiB, load_s=50.0)})
    trace = [asked(at, "abc"[at // 100 % 3], 10, 1) for at in range(0, 30_000, 100)]
    ours, theirs = (POLICIES[name](slow, trace, SPEEDS) for name in ("helios", "lru"))
    assert ours.answered == theirs.answered == 300
    assert theirs.starts == 300
    assert ours.swap_s < 0.4 * theirs.swap_s
    assert ours.overcommits == theirs.overcommits == 0


def test_the_rules_of_others() -> None:
    trace = [asked(at, "abc"[at // 110 % 3], 10, 1) for at in range(0, 12 * 110, 110)]
    found = {name: policy(fleet(gib=80), trace, SPEEDS) for name, policy in POLICIES.items()}
    assert found["helios"].starts == found["lru"].starts == 3, "all three fit"
    assert found["llama-swap"].starts == 12, "one at a time"
    assert found["ollama"].starts == 12, "each comes again after 300 s, when its time is over"
    assert found["dedicated"].starts == 3
    assert found["dedicated"].device_s == 3 * found["dedicated"].span_s
    assert {each.answered for each in found.values()} == {12}


def test_starts_on_one_device_follow_one_another() -> None:
    found = POLICIES["helios"](fleet(gib=80), [asked(0, "a", 0), asked(0, "b", 0)], SPEEDS)
    assert found.first_token_s == [5.0, 10.0]
    both = POLICIES["helios"](fleet(devices=2, gib=30), [asked(0, "a", 0), asked(0, "b", 0)], SPEEDS)
    assert both.first_token_s == [5.0, 5.0]
