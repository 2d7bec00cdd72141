from tests.heliosctl.samples import replica
from tui.details import details


def test_predicted_stands_beside_measured_and_phases_have_bars():
    lines = details(replica(log_file="/log/r1")).plain.splitlines()
    assert lines[0] == "org/small"
    joined = [" ".join(line.split()) for line in lines]
    assert "overhead 320.0 MiB 300.0 MiB +6.7%" in joined
    assert "total 1.6 GiB 1.5 GiB +1.3%" in joined
    assert "started in 1.5 s" in joined
    assert any(line.startswith("load 1.1 s ████") for line in joined)
    assert "log /log/r1" in joined


def test_before_it_is_ready_nothing_is_claimed():
    text = details(replica(state="starting", measured=None, phases={})).plain
    assert "not started yet" in text
    assert "%" not in text


def test_a_replica_that_starts_shows_what_is_done_and_what_is_left() -> None:
    text = details(replica(state="starting", measured=None, phases={"fork": 0.5}, left_s=3.0)).plain
    assert "starting, 500 ms so far, 3.0 s left" in text
    assert "fork" in text
