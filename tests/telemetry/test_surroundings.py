"""Disks, database and peers as families; what is not there is left out."""

from pathlib import Path

from heliosd.state.database import Database
from heliosd.telemetry.surroundings import Disk, Surroundings, surroundings
from heliosd.telemetry.survey import Survey


def values(found: Surroundings) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in surroundings(found)
        for sample in family.samples
    }


def test_what_a_survey_finds_becomes_families() -> None:
    found = values(Surroundings((Disk("store", 100, 60),), 7, 3, 2, ("alive", "dead", "alive"), 4.5))
    assert found["helios_disk_free_bytes", "store"] == 60
    assert found["helios_disk_total_bytes", "store"] == 100
    assert (found["helios_database_bytes", "main"], found["helios_database_bytes", "wal"]) == (7, 3)
    assert found["helios_database_backlog",] == 2
    assert (found["helios_cluster_members", "alive"], found["helios_cluster_members", "left"]) == (2, 0)
    assert found["helios_cluster_heard_seconds",] == 4.5


def test_a_node_that_heard_of_nobody_tells_no_time() -> None:
    assert ("helios_cluster_heard_seconds",) not in values(Surroundings())


async def test_the_survey_looks_at_real_disks(tmp_path: Path) -> None:
    database = Database(tmp_path / "helios.db")
    await database.open()
    found = Survey(database, {"state": tmp_path, "slow": tmp_path / "not mounted"}).take()
    await database.close()
    (disk,) = found.disks
    assert (disk.place, 0 < disk.free_bytes < disk.total_bytes) == ("state", True)
    assert found.database_bytes > 0
