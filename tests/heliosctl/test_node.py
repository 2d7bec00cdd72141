import json
import threading

from heliosctl.__main__ import main
from heliosd import __version__
from heliosd.wire import CheckView
from tests.heliosctl.samples import NODE, device
from tests.heliosctl.stand_in import StandIn, serving_from_a_thread


def test_gpus_show_the_ledgers_columns(daemon, ctl):
    daemon.devices.append(device("gpu1", fault="fell off the bus"))
    lines = ctl("gpus").out.splitlines()
    assert lines[0].split()[:2] == ["DEVICE", "NAME"]
    assert " ".join(lines[1].split()[3:]) == "8.0 GiB 256.0 MiB 1.0 GiB 320.0 MiB 512.0 MiB 5.8 GiB 63% -"
    assert lines[-1] == "gpu1: fell off the bus"
    daemon.devices.append(device("gpu2", drained=True))
    assert "gpu2: drained: nothing is started there until `heliosctl undrain gpu2`" in ctl("gpus").out
    assert ctl("devices", "-o", "wide").out.startswith("DEVICE")


def test_watch_shows_every_change(socket_path, capfd):
    stand_in = StandIn()
    thread = threading.Thread(target=lambda: main(["--socket", str(socket_path), "ps", "-w", "-q"]))
    with serving_from_a_thread(stand_in, socket_path) as on_loop:
        thread.start()
        out = ""
        while "r1\n" not in out:
            out += capfd.readouterr().out
            thread.join(0.005)
        on_loop(lambda: (stand_in.replicas.append(stand_in.replicas[0].model_copy(update={"id": "r2"})), None)[1])
        on_loop(stand_in.changed)
        while "r2\n" not in out:
            out += capfd.readouterr().out
            thread.join(0.005)
    thread.join(10)
    assert out == "r1\nr1\nr2\n"


def test_doctor_is_content(daemon, ctl):
    ended = ctl("doctor")
    assert ended.code == 0
    assert "ok   daemon: node-a is running" in ended.out
    assert "ok   store: 1 model" in ended.out


def test_doctor_finds_what_is_wrong(daemon, ctl):
    daemon.checks.append(CheckView(name="driver", ok=False, message="too old", advice="update it"))
    daemon.node = NODE.model_copy(update={"version": "9.9"})
    ended = ctl("doctor")
    assert ended.code == 1
    assert "BAD  driver: too old\n     -> update it" in ended.out
    assert f"BAD  version: heliosctl {__version__}, heliosd 9.9" in ended.out


def test_doctor_tells_how_fast_the_storage_is(daemon, ctl):
    ended = ctl("doctor", "--storage")
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert lines[0].split() == ["METHOD", "FROM", "DISK", "FROM", "CACHE", "NOTE"]
    assert lines[1].split() == ["read", "1.9", "GiB/s", "14.0", "GiB/s"]
    assert lines[2].split() == ["helios", "-", "1.9", "GiB/s", "a", "replica", "has", "it", "mapped"]
    assert "engines load with helios from now on" in lines[-1]
    assert json.loads(ctl("doctor", "--storage", "-o", "json").out)["load_format"] == "helios"


def test_doctor_without_a_daemon(ctl):
    ended = ctl("doctor", "-o", "json")
    assert ended.code == 3
    assert json.loads(ended.out)["checks"][0]["ok"] is False


def test_version_knows_both(daemon, ctl):
    assert json.loads(ctl("version", "-o", "json").out) == {"heliosctl": __version__, "heliosd": __version__}


def test_version_without_a_daemon(ctl):
    ended = ctl("version")
    assert ended.code == 0
    assert "not running" in ended.out
