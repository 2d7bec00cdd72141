"""`heliosctl` in an operator's hand: what a change would do, what it does, and what the audit has of it."""

import json
from collections.abc import Callable, Iterator

import pytest

from heliosctl.__main__ import main
from heliosctl.exits import Exit
from tests.e2e.daemon import Daemon, heliosd
from tests.store.models import model_files, write_folder

pytestmark = pytest.mark.slow

FLEET = '[[device]]\nname = "g"\ncount = 2\ncapacity = "16GiB"\n'
CONFIG = '[engines]\nkv_cache = "2GiB"\n[models."test/m"]\nkeep_alive_s = "forever"\nengine_args = {load_s = 0.05}\n'
Say = Callable[..., str]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with heliosd(fleet=FLEET, config=CONFIG) as daemon:
        daemon.bring(write_folder(tmp_path_factory.mktemp("m") / "m", model_files()), "test/m")
        yield daemon


@pytest.fixture
def said(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> Iterator[Say]:
    """What a command prints, both its streams; nothing runs before and after."""

    def say(*words: str, code: int = Exit.OK) -> str:
        capsys.readouterr()
        found = main(["--socket", str(daemon.socket), *words])
        told = capsys.readouterr()
        assert found == code, (words, told)
        return told.out + told.err

    yield say
    if daemon.replicas():
        main(["--socket", str(daemon.socket), "stop", "test/m"])


def places(daemon: Daemon) -> list[str]:
    return sorted(device for each in daemon.replicas() for device in each["devices"])


def test_scale_up_and_down(daemon: Daemon, said: Say) -> None:
    told = said("scale", "test/m", "2", "--devices", "g0,g1", "--dry-run")
    assert "nothing was done" in told
    assert "start" in told
    assert daemon.replicas() == []
    said("scale", "test/m", "2", "--devices", "g0,g1")
    assert len(daemon.replicas()) == 2
    assert "stopped: " in said("scale", "test/m", "0")
    assert daemon.replicas() == []
    assert "cannot" in said("scale", "test/m", "1", "--devices", "g7", code=Exit.FAILED)


def test_evict_tells_what_it_frees_and_asks(daemon: Daemon, said: Say) -> None:
    said("load", "test/m")
    assert "GiB" in said("evict", "test/m", "--dry-run")
    assert "there is no terminal" in said("evict", "test/m", code=Exit.USAGE)
    assert len(daemon.replicas()) == 1
    said("evict", "test/m", "--to", "stop", "-y")
    assert daemon.replicas() == []


def test_move_to_another_device(daemon: Daemon, said: Say) -> None:
    said("scale", "test/m", "1", "--devices", "g0")
    (before,) = daemon.replicas()
    assert "nothing was done" in said("move", before["id"], "g1", "--dry-run")
    assert f"instead of {before['id']}" in said("move", before["id"], "g1")
    assert places(daemon) == ["g1"]
    assert "cannot move nobody" in said("move", "nobody", "g1", code=Exit.NOT_FOUND)


def test_limits_of_what_runs(daemon: Daemon, said: Say) -> None:
    said("load", "test/m")
    assert "max_num_seqs" in said("limits", "test/m", "--max-num-seqs", "3")
    assert daemon.replicas()[0]["limit"] == 3
    assert "say --max-num-seqs" in said("limits", "test/m", code=Exit.USAGE)


def test_drain_a_device_and_take_it_back(daemon: Daemon, said: Say) -> None:
    said("scale", "test/m", "1", "--devices", "g0")
    assert "nothing was done" in said("drain", "--device", "g0", "--dry-run")
    assert "g0 is drained; stopped: " in said("drain", "--device", "g0", "-y", "--reason", "its fan")
    assert places(daemon) == []
    said("scale", "test/m", "2")
    assert set(places(daemon)) == {"g1"}
    assert "drained" in said("gpus")
    assert "g0 is in service again" in said("undrain", "g0")
    assert "drained" not in said("gpus")


def test_drain_the_node_and_take_it_back(daemon: Daemon, said: Say) -> None:
    assert "the node is drained" in said("drain", "--node", "-y")
    assert "this node is draining" in said("load", "test/m", code=Exit.UNAVAILABLE)
    assert "the node is in service again" in said("undrain")
    said("load", "test/m")


def test_the_configuration_is_shown_and_read_again(daemon: Daemon, said: Say) -> None:
    assert 'kv_cache = "2GiB"' in said("config")
    daemon.configure(CONFIG + "[devices]\nread_interval_s = 9\n[queue]\npatience_s = 7\n")
    assert "queue.patience_s" in said("reload", "--dry-run")
    assert "patience_s = 7" not in said("config")
    told = said("reload")
    assert "changed: queue.patience_s" in told
    assert "patience_s = 7" in said("config")
    assert "needs a restart: devices.read_interval_s" in told
    daemon.configure(CONFIG + "[devices]\nread_interval_s = -1\n")
    assert "read_interval_s" in said("reload", code=Exit.FAILED)
    daemon.configure(CONFIG)
    said("reload")


def test_the_level_of_the_log(daemon: Daemon, said: Say) -> None:
    assert said("log-level").strip() == "info"
    assert "debug and above are logged, it was info" in said("log-level", "debug")
    assert said("log-level").strip() == "debug"
    said("log-level", "info")


def test_the_audit_has_every_change_with_who_and_why(daemon: Daemon, said: Say) -> None:
    said("load", "test/m", "--reason", "the demo", "--idempotency-key", "once")
    said("evict", "test/m", "--to", "stop", "--dry-run")
    entries = json.loads(said("audit", "--since", "1h", "-o", "json"))["entries"]
    assert [each["result"] for each in entries[-2:]] == ["done", "planned"]
    assert entries[-2]["why"] == "the demo"
    assert all(each["who"] for each in entries)
    assert "its fan" in said("audit")
    with pytest.raises(SystemExit):
        main(["audit", "--since", "soon"])
