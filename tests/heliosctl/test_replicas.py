import json

import pytest

from heliosd.wire import QueueView
from tests.heliosctl.samples import replica


def test_ps_shows_replicas_and_who_waits(daemon, ctl):
    daemon.replicas.append(replica("r2", model="org/big", state="starting", measured=None, phases={}))
    daemon.queue.append(QueueView(ticket="t-9", model="org/big", waiting_s=2.5, reason="r2 is starting"))
    lines = ctl("ps").out.splitlines()
    assert lines[0].split() == ["MODEL", "REPLICA", "STATE", "LEASES", "MEMORY", "IDLE", "KEPT", "DEVICES"]
    assert " ".join(lines[1].split()) == "org/small r1 ready 0 1.5 GiB 3.0 s 5m 00s gpu0"
    assert "~1.6 GiB" in lines[2]
    assert " ".join(lines[-1].split()) == "org/big t-9 2.5 s r2 is starting"


def test_ps_json_is_the_api_body(daemon, ctl):
    body = json.loads(ctl("ps", "-o", "json").out)
    assert [row["id"] for row in body["replicas"]] == ["r1"]
    assert body["queue"] == []


def test_load_tells_memory_and_phases(daemon, ctl):
    ended = ctl("load", "org/small")
    assert (ended.code, ended.out) == (0, "r1\n")
    assert "1.5 GiB per device" in ended.err
    assert "started in 1.5 s: fork 40 ms, load 1.1 s, kv cache 360 ms" in ended.err
    assert daemon.asked[-1][3] == {"model": "org/small"}


def test_stop_names_what_stopped(daemon, ctl):
    assert ctl("stop", "org/small").out == "r1\n"
    assert daemon.replicas == []


def test_stop_all_stops_every_replica(daemon, ctl):
    daemon.replicas.append(replica("r2"))
    assert ctl("stop", "--all").out == "r1\nr2\n"
    ended = ctl("stop", "--all")
    assert (ended.code, ended.out, ended.err) == (0, "", "nothing ran\n")


def test_stop_of_a_stranger_is_not_found(daemon, ctl):
    assert ctl("stop", "r99").code == 4


@pytest.mark.parametrize("words", [["stop"], ["stop", "--all", "r1"]])
def test_stop_wants_to_know_what(daemon, ctl, words):
    ended = ctl(*words)
    assert ended.code == 2
    assert "--all" in ended.err
