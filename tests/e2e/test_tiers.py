"""Models that move between tiers, from the command line and the API, with a daemon over simulated devices."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from heliosctl.__main__ import main
from heliosctl.exits import Exit
from tests.e2e.daemon import Daemon, heliosd
from tests.store.models import model_files, write_folder

pytestmark = pytest.mark.slow

FLEET = '[[device]]\nname = "g0"\ncapacity = "8GiB"\n'
SIZE_BYTES = 3 << 20
Ctl = Callable[..., tuple[int, str, str]]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    config = f"""
[store]
nvme_budget = "10MiB"
disk_dir = "{tmp_path}/disk"
disk_budget = "4MiB"
host_memory = "4MiB"
"""
    with heliosd(fleet=FLEET, config=config) as daemon:
        for number in range(3):
            daemon.bring(write_folder(tmp_path / str(number), model_files(SIZE_BYTES, seed=number)), f"me/m{number}")
        yield daemon


@pytest.fixture
def ctl(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> Ctl:
    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main(["--socket", str(daemon.socket), *words])
        except SystemExit as left:
            code = int(left.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def tier(daemon: Daemon, model: str) -> str:
    return next(row["tier"] for row in daemon.get("models")["models"] if row["ref"] == model)


def test_models_go_where_they_are_wanted_and_a_download_finds_room(daemon: Daemon, ctl: Ctl, tmp_path: Path):
    code, out, _ = ctl("tiers")
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert [row[0] for row in rows] == ["TIER", "host", "nvme", "disk", "peer", "hub"]
    assert rows[2][:6] == ["nvme", "10.0", "MiB", "9.0", "MiB", "3"]
    assert ctl("tiers", "plan")[1] == "nothing is to be moved\n"

    assert ctl("tiers", "move", "me/m0", "disk") == (0, "me/m0\n", _said("me/m0", "disk"))
    daemon.until(lambda: tier(daemon, "me/m0") == "disk", 20, "me/m0 does not go to disk")
    wide = ctl("ls", "-o", "wide")[1]
    assert "disk" in next(line for line in wide.splitlines() if line.startswith("me/m0"))
    assert "disk" in next(line for line in ctl("show", "me/m0")[1].splitlines() if line.startswith("tier"))
    metrics = daemon.admin.get("/metrics").text
    assert 'helios_tier_moves_total{from="nvme",to="disk"} 1.0' in metrics
    assert 'helios_tier_bytes{tier="disk"} 3.1' in metrics
    (entry,) = [each for each in daemon.events() if each["kind"] == "tier" and "went" in each["message"]]
    assert entry["message"].startswith("me/m0 went from nvme to disk, 3.0 MiB in ")
    assert entry["message"].endswith(": an operator wants it there")
    assert daemon.get("tiers")["wishes"] == [{"model": "me/m0", "tier": "disk"}]

    ask = {"model": "me/m0", "max_tokens": 3, "messages": [{"role": "user", "content": "hello"}]}
    assert daemon.admin.post("/v1/chat/completions", json=ask, timeout=60).status_code == 200, "served from the disk"

    assert ctl("tiers", "move", "me/m1", "host")[0] == 0
    daemon.until(lambda: tier(daemon, "me/m1") == "host", 20, "me/m1 does not go to RAM")

    # m2 would have to make room for this one, and the disk, which holds m0, has none left.
    big = write_folder(tmp_path / "big", model_files(6 << 20, seed=9))
    code, _, err = ctl("import", str(big), "--name", "me/big")
    assert code != 0 and "which may hold 10.0 MiB, has" in err
    assert "me/big" not in [row["ref"] for row in daemon.get("models")["models"]]
    assert ctl("rm", "-y", "me/m2")[0] == 0
    assert ctl("import", str(big), "--name", "me/big")[0] == 0


def test_what_cannot_be_is_said(daemon: Daemon, ctl: Ctl):
    assert ctl("tiers", "move", "me/m0")[0] == Exit.USAGE
    assert "a tier is host, nvme, disk, peer, hub or auto" in ctl("tiers", "move", "me/m0", "tape")[2]
    code, _, err = ctl("tiers", "move", "me/none", "disk")
    assert code == Exit.NOT_FOUND and "cannot move me/none: the store does not have it" in err
    answer = daemon.admin.put("/helios/v1/tiers/models/me/m0", json={"tier": "tape"})
    assert answer.status_code == 400
    assert json.loads(ctl("tiers", "plan", "-o", "json")[1]) == {"moves": [], "unmet": []}
    assert ctl("tiers", "move", "me/m0", "auto")[2] == "me/m0 may be in any tier again\n"


def _said(model: str, tier: str) -> str:
    return f"{model} is wanted in {tier} and goes there as soon as nobody uses it\n"
