"""Which logs of replicas are kept."""

import os
from pathlib import Path

from heliosd.engines.old_logs import hold, remove_old


def written(folder: Path, count: int) -> None:
    for number in range(1, count + 1):
        file = folder / f"r{number}.log"
        file.write_text("said")
        os.utime(file, (number, number))


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_the_last_ones_are_kept_and_nothing_else_is_touched(tmp_path: Path) -> None:
    written(tmp_path, 12)
    (tmp_path / "zygote.log").touch()
    os.utime(tmp_path / "zygote.log", (0, 0))
    remove_old(tmp_path, keep=2)
    assert names(tmp_path) == {"r11.log", "r12.log", "zygote.log"}


def test_few_logs_all_stay(tmp_path: Path) -> None:
    written(tmp_path, 3)
    remove_old(tmp_path, keep=3)
    assert len(names(tmp_path)) == 3


def test_a_log_in_use_is_kept_until_its_process_has_ended(tmp_path: Path) -> None:
    written(tmp_path, 4)
    with (tmp_path / "r1.log").open("ab") as log:
        hold(log.fileno())
        remove_old(tmp_path, keep=2)
        assert names(tmp_path) == {"r1.log", "r3.log", "r4.log"}
    remove_old(tmp_path, keep=2)
    assert names(tmp_path) == {"r3.log", "r4.log"}
