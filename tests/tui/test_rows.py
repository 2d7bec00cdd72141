from heliosd.wire import QueueView
from tests.heliosctl.samples import NODE, replica
from tui.rows import lost_line, node_line, queue_row, replica_row


def words(cells) -> list[str]:
    return [str(cell) for cell in cells]


def test_idleness_grows_between_snapshots():
    row = words(replica_row(replica(idle_s=3.0, keep_alive_s=300.0), age_s=7.0))
    assert row == ["org/small", "ready", "0", "1.5 GiB", "10.0 s", "4m 50s", "gpu0", "r1"]


def test_a_busy_replica_is_not_idle():
    assert words(replica_row(replica(leases=2), 5.0))[4:6] == ["-", "-"]


def test_what_is_kept_for_ever_never_stops():
    assert words(replica_row(replica(keep_alive_s=None), 0.0))[5] == "never"


def test_a_prediction_is_marked():
    assert words(replica_row(replica(state="starting", measured=None), 0.0))[3] == "~1.6 GiB"


def test_waiting_grows_too():
    entry = QueueView(ticket="t-1", model="m" * 40, waiting_s=1.0, reason="r1 is busy")
    assert queue_row(entry, 2.0) == ("m" * 29 + "…", "3.0 s", "r1 is busy", "t-1")


def test_the_node_tells_its_warnings():
    node = NODE.model_copy(update={"warnings": ["the disk is nearly full"]})
    assert node_line(node, "/there", 48.0).plain == (
        "Helios node-a 0.1.0 · running · up 1m 00s · vllm 0.32.0 warm · /there\n! the disk is nearly full"
    ).replace("0.1.0", NODE.version)


def test_a_lost_connection_is_told():
    assert lost_line("connection refused", "/there", 0.5).plain == (
        "DISCONNECTED connection refused · /there · trying again in 500 ms"
    )
