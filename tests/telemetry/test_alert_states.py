"""An alert waits, fires once, and clears once."""

from heliosd.telemetry.alert_states import AlertStates
from heliosd.telemetry.alerts import Alert
from heliosd.telemetry.conditions import Condition, Now, Reading

HOT = Alert("Hot", Condition(Now("heat"), ">", 10), 60, "warning", "{device} is at {value}", "cool it")
G0, G1 = (("device", "g0"),), (("device", "g1"),)


def states(for_s: float | None = None) -> AlertStates:
    return AlertStates((HOT,), for_s)


def look(of: AlertStates, at: float, **heat: float) -> list[tuple[bool, str]]:
    samples = {(("device", device),): value for device, value in heat.items()}
    return [(change.firing, change.active.summary) for change in of.look(Reading(at, {"heat": samples}))]


def test_it_fires_when_it_was_true_for_long_enough_and_says_so_once() -> None:
    hot = states()
    assert look(hot, 0, g0=20) == look(hot, 59, g0=20) == []
    assert hot.firing() == {"Hot": 0}
    assert look(hot, 60, g0=21) == [(True, "g0 is at 21")]
    assert look(hot, 75, g0=30) == []
    assert hot.firing() == {"Hot": 1}
    assert look(hot, 90, g0=5) == [(False, "g0 is at 30")]
    assert look(hot, 105, g0=5) == []
    assert hot.firing() == {"Hot": 0}


def test_a_condition_that_was_false_in_between_begins_anew() -> None:
    hot = states()
    look(hot, 0, g0=20)
    look(hot, 45, g0=0)
    assert look(hot, 60, g0=20) == look(hot, 100, g0=20) == []
    assert look(hot, 120, g0=20) != []


def test_a_series_that_is_gone_clears_its_alert() -> None:
    hot = states(for_s=0)
    assert [firing for firing, _ in look(hot, 0, g0=20, g1=20)] == [True, True]
    assert look(hot, 15, g1=20) == [(False, "g0 is at 20")]


def test_the_time_may_be_shorter_than_the_alert_says_but_not_longer() -> None:
    assert look(states(for_s=0), 0, g0=20) != []
    patient = states(for_s=600)
    look(patient, 0, g0=20)
    assert look(patient, 60, g0=20) != []


def test_no_more_is_remembered_than_alerts_look_back() -> None:
    hot = states()
    for at in range(0, 20_000, 15):
        look(hot, at, g0=1)
    assert len(hot.readings) <= 3600 / 15 + 1
