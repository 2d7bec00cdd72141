import json
import threading

from heliosctl.__main__ import main
from tests.heliosctl.stand_in import StandIn, serving_from_a_thread


def test_events_are_shown_oldest_first(daemon, ctl):
    daemon.note("grant", "t-1 gets r1", ticket="t-1", replica="r1")
    daemon.note("stop", "r1 was idle for 300 s", replica="r1")
    lines = ctl("events").out.splitlines()
    assert [line.split("   ")[-1].strip() for line in lines[1:]] == ["t-1 gets r1", "r1 was idle for 300 s"]
    assert json.loads(ctl("events", "-o", "json").out)["events"][1]["kind"] == "stop"


def test_events_about_one_subject(daemon, ctl):
    daemon.note("grant", "t-1 gets r1", ticket="t-1")
    daemon.note("grant", "t-2 gets r1", ticket="t-2")
    out = ctl("events", "--subject", "t-2").out
    assert "t-2 gets r1" in out and "t-1 gets r1" not in out


def test_follow_goes_on_until_the_daemon_ends(socket_path, capfd):
    stand_in = StandIn()
    stand_in.note("start", "first")
    codes: list[int] = []
    words = ["--socket", str(socket_path), "events", "-f", "-o", "json"]
    thread = threading.Thread(target=lambda: codes.append(main(words)))
    with serving_from_a_thread(stand_in, socket_path) as on_loop:
        thread.start()
        out = ""
        told = False
        while out.count("\n") < 2:
            out += capfd.readouterr().out
            if "first" in out and not told:
                told = True
                on_loop(lambda: stand_in.note("start", "second"))
            thread.join(0.005)
    thread.join(10)
    assert [json.loads(line)["message"] for line in out.splitlines()] == ["first", "second"]


def test_explain_tells_why(daemon, ctl):
    daemon.note("hold", "waits: r2 is busy", ticket="t-7")
    assert "waits: r2 is busy" in ctl("explain", "t-7").out
    ended = ctl("explain", "t-8")
    assert ended.code == 4


def test_logs_of_the_daemon_a_replica_and_a_model(daemon, ctl):
    assert ctl("logs", "-n", "2").out == "daemon line 0\ndaemon line 1\n"
    assert ctl("logs", "r1", "-n", "1").out == "r1 line 0\n"
    assert daemon.asked[-1][2] == {"lines": "1", "replica": "r1"}
    assert ctl("logs", "org/small", "-n", "1").out == "org/small line 0\n"
    assert daemon.asked[-1][2] == {"lines": "1", "model": "org/small"}
