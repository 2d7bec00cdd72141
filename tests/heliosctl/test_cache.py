"""heliosctl cache: what models take on the disk."""

import json

from heliosd.core.units import GiB, MiB
from heliosd.wire import CachedModel, CacheView, SharedView
from tests.heliosctl.stand_in_replies import Refusal

VIEW = CacheView(
    models=[
        CachedModel(ref="org/base", logical_bytes=GiB, alone_bytes=MiB, shared_bytes=GiB - MiB, frees_bytes=MiB),
        CachedModel(ref="org/tune", logical_bytes=GiB, alone_bytes=64 * MiB, shared_bytes=GiB - MiB, frees_bytes=0),
    ],
    logical_bytes=2 * GiB,
    physical_bytes=GiB + 64 * MiB,
    ratio=0.53125,
)


def test_du_shows_what_each_model_takes(daemon, ctl):
    daemon.cache = VIEW
    ended = ctl("cache", "du")
    assert ended.code == 0
    titles, base, tune, _, total = ended.out.splitlines()
    assert titles.split() == ["MODEL", "LOGICAL", "ALONE", "SHARED", "RM", "FREES"]
    assert base.split() == ["org/base", "1.0", "GiB", "1.0", "MiB", "1023.0", "MiB", "1.0", "MiB"]
    assert tune.split()[:5] == ["org/tune", "1.0", "GiB", "64.0", "MiB"]
    assert total == "2.0 GiB of models take 1.1 GiB of disk (53%)"


def test_du_tells_of_files_put_together(daemon, ctl):
    daemon.cache = VIEW.model_copy(update={"whole_bytes": GiB})
    assert ctl("cache", "du").out.endswith("and 1.0 GiB for engines that read whole files only\n")


def test_du_gives_programs_the_body(daemon, ctl):
    daemon.cache = VIEW
    assert CacheView.model_validate(json.loads(ctl("cache", "du", "-o", "json").out)) == VIEW


def test_share_says_what_came_of_it(daemon, ctl):
    daemon.shared = SharedView(files=2, logical_bytes=2 * GiB, freed_bytes=GiB, in_use=1)
    ended = ctl("cache", "share")
    assert ended.code == 0
    assert ended.out == "1.0 GiB are free again\n"
    assert "2 files of 2.0 GiB" in ended.err
    assert "1 files are in use" in ended.err


def test_a_refusal_is_passed_on(daemon, ctl):
    daemon.refusals["POST /helios/v1/cache/share"] = Refusal(503, "disk_full", "cannot share it: the disk is full")
    ended = ctl("cache", "share")
    assert ended.code != 0
    assert "the disk is full" in ended.err
