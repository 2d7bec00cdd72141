"""The recording of a daemon is fetched, kept or replayed. What replay finds is told in tests/test_replay.py."""

import json

from heliosd.core.codec import Codec
from heliosd.core.scheduler import Scheduler

HEAD = {"helios": "1", "shared": [], "state": Codec().encode(Scheduler, Scheduler())}
TICK = {"event": {"is": "Tick", "at": 1.0}, "commands": []}


def lines(*said: object) -> str:
    return "".join(json.dumps(each) + "\n" for each in said)


def test_a_recording_is_saved_as_it_is(daemon, ctl, tmp_path):
    daemon.recording = lines(HEAD, TICK)
    assert ctl("replay", "--save", str(tmp_path / "it")).code == 0
    assert (tmp_path / "it").read_text() == daemon.recording
    assert ctl("replay", "--save", str(tmp_path / "none" / "it")).code == 1


def test_without_a_file_the_daemon_is_asked(daemon, ctl):
    daemon.recording = lines(HEAD, TICK)
    assert ctl("replay").code == 0
    daemon.recording = lines(HEAD, {**TICK, "commands": [{"is": "Note", "subject": "g0", "reason": "no"}]})
    assert ctl("replay").code == 1
    assert [path for _, path, _, _ in daemon.asked] == ["/helios/v1/recording"] * 2
