import pytest

from heliosd.core.units import MiB
from heliosd.wire import QueueView, ReplicaView, Snapshot
from tests.heliosctl.samples import MEASURED, NODE, device, replica
from tests.tui.household import Household
from tui.history import History, figures, sparkline
from tui.models import states_of, with_states
from tui.now import Now, read_now
from tui.waiting import waiting_text


def now(**changes: object) -> Now:
    values = {"node": NODE, "devices": [device()], "replicas": [replica()], "queue": []} | changes
    return read_now(Snapshot(**values).model_dump_json(), 5.0)


def test_rows_are_read_when_they_are_shown():
    it = now()
    assert it.node == NODE and it.devices == [device()] and it.seen_at == 5.0
    assert ReplicaView.model_validate(it.replicas[0]) == replica()
    assert it.states == {"ready": 1}


def test_what_is_no_snapshot_is_an_error():
    with pytest.raises(ValueError, match="replicas"):
        read_now('{"node": {}}', 0.0)
    with pytest.raises(ValueError):
        read_now("not json", 0.0)


def test_of_the_kv_cache_what_is_used_and_of_sleepers_what_they_keep():
    sleeper = replica("r2", state="asleep", measured=None)
    it = now(
        devices=[device(promised_bytes=1600 * MiB + 90 * MiB), device("gpu1")],
        replicas=[replica(kv_used_ratio=0.25), sleeper],
    )
    assert it.held["gpu0"].kv_used_bytes == 256 * MiB
    assert it.held["gpu0"].sleepers_bytes == 90 * MiB
    assert (it.held["gpu1"].kv_used_bytes, it.held["gpu1"].sleepers_bytes) == (0, 0)


def test_without_sleepers_what_is_measured_above_the_prediction_is_no_sleeper():
    more = MEASURED.model_copy(update={"total_bytes": 1700 * MiB})
    it = now(devices=[device(promised_bytes=1700 * MiB)], replicas=[replica(measured=more)])
    assert it.held["gpu0"].sleepers_bytes == 0


def test_the_best_state_of_a_models_replicas_is_its_own_and_its_adapters():
    household = Household()
    it = now(replicas=[replica("a", state="asleep"), replica("b"), replica("c", state="failed")])
    assert states_of(it) == {"org/small": "ready"}
    rows = with_states([model.model_dump() for model in household.models], {"meta/llama-3.1-8b": "ready"})
    assert {row["ref"]: state for row, state in rows if state == "ready"} == {
        "meta/llama-3.1-8b": "ready", "acme/support-lora": "ready",
    }  # fmt: skip


def test_history_forgets_what_is_gone_and_keeps_the_last():
    history = History(length=3)
    for value in range(5):
        history.add({"a": float(value)} | ({"b": 1.0} if value < 2 else {}))
    assert history.of("a") == (2.0, 3.0, 4.0)
    assert history.of("b") == ()
    assert figures(now(queue=[QueueView(ticket="t", model="m", waiting_s=0.0, reason="")])) == {
        "leases": 0.0, "waiting": 1.0, "used gpu0": 2092 / 8192, "busy gpu0": 0.63,
    }  # fmt: skip


def test_a_line_of_blocks_goes_from_nothing_to_the_most():
    assert sparkline([0, 0.5, 1], 10, 1.0) == "▁▅█"
    assert sparkline([1, 2, 3, 4], 2) == "▆█"
    assert sparkline([0, 0], 5) == "▁▁"
    assert sparkline([], 5) == ""
    assert sparkline([1, 2], 0) == ""


def test_who_waits_is_told_in_full():
    entry = QueueView(ticket="t-1", model="org/m", waiting_s=1.0, reason="a long reason " * 9, position=2, key="laptop")
    text = waiting_text(entry.model_dump()).plain
    assert "t-1 waits for org/m" in text and "2 before it" in text and "a long reason " * 9 in text
