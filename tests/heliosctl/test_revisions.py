"""What a model has meant, as the command line tells it, and what the store could do without."""

import json

from heliosctl.exits import Exit
from heliosd.core.units import MiB
from heliosd.wire import (
    DifferenceView,
    FileDifferenceView,
    GarbageItem,
    GarbageView,
    KeyDifferenceView,
    RevisionView,
    TensorDifferenceView,
)


def revision(letter: str, **changes: object) -> RevisionView:
    values: dict[str, object] = {
        "ref": f"org/small@{letter * 12}",
        "revision": letter * 64,
        "at": 1_000_000.0,
        "why": "added",
        "source": "directory /models/small",
        "current": False,
        "kept": True,
        "size_bytes": 270 * MiB,
        "own_bytes": 20 * MiB,
        "shared_bytes": 250 * MiB,
    }
    return RevisionView(**(values | changes))  # type: ignore[arg-type]


def test_revisions_are_listed(daemon, ctl):
    daemon.revisions.revisions.extend([revision("a", current=True, used_by=["r1"]), revision("b", kept=False)])
    titles, first, second = ctl("revisions", "org/small").out.splitlines()
    assert titles.split() == ["REVISION", "NOW", "SINCE", "SIZE", "OWN", "SHARED", "KEPT", "WHY"]
    assert first.split()[:2] == ["a" * 12, "*"]
    assert "270.0 MiB   20.0 MiB   250.0 MiB   yes    added" in first
    assert second.split()[-2:] == ["no", "added"]
    assert "r1        directory /models/small" in ctl("revisions", "org/small", "-o", "wide").out
    assert json.loads(ctl("revisions", "org/small", "-o", "json").out)["keep"] == 2


def test_rollback(daemon, ctl):
    ended = ctl("rollback", "org/small", "--to", "cdcdcdcd")
    assert ended.out == f"{'cd' * 32}\n"
    assert ended.err == "org/small means cdcdcdcdcdcd again, no longer abababababab\n"
    assert daemon.asked[-1][:2] == ("POST", "/helios/v1/models/org/small/rollback")
    assert daemon.asked[-1][3] == {"to": "cdcdcdcd"}


def test_diff_shows_each_kind(daemon, ctl):
    daemon.difference = DifferenceView(
        before="org/small@cd",
        after="org/small@ab",
        files=[
            FileDifferenceView(path="a.safetensors", change="changed", before_bytes=MiB, after_bytes=2 * MiB),
            FileDifferenceView(path="b.json", change="added", after_bytes=7),
        ],
        tensors=[
            TensorDifferenceView(name="x", change="bytes", before="BF16 [2]", after="BF16 [2]", size_bytes=4),
            TensorDifferenceView(name="y", change="dtype", before="BF16 [2]", after="F32 [2]", size_bytes=8),
            TensorDifferenceView(name="z", change="removed", before="BF16 [2]", size_bytes=4),
        ],
        keys=[KeyDifferenceView(file="config.json", key="rope.theta", change="changed", before=1, after=2)],
        equal_files=3,
        equal_tensors=270,
    )
    ended = ctl("diff", "org/small@cdcdcdcd", "org/small")
    assert ended.out.splitlines() == [
        "from org/small@cd to org/small@ab",
        "",
        "files: 2 differ, 3 are the same",
        "  ~ a.safetensors   1.0 MiB -> 2.0 MiB",
        "  + b.json          7 B",
        "",
        "configurations: 1 keys differ",
        "  ~ config.json: rope.theta   1 -> 2",
        "",
        "tensors: 3 differ, 270 are the same",
        "  ~ x   BF16 [2], other values",
        "  ~ y   BF16 [2] -> F32 [2]",
        "  - z   BF16 [2]",
    ]
    assert daemon.asked[-1][3] == {"model": "org/small@cdcdcdcd", "other": "org/small"}


def test_a_long_diff_is_cut_unless_wide(daemon, ctl):
    daemon.difference.tensors[:] = [
        TensorDifferenceView(name=f"t{number}", change="added", after="U8 [1]", size_bytes=1) for number in range(50)
    ]
    assert "  and 10 more; -o wide shows all" in ctl("diff", "org/small").out
    assert "t49" in ctl("diff", "org/small", "-o", "wide").out


def test_a_diff_that_is_cut_off_is_a_failure(daemon, ctl):
    daemon.cut = True
    ended = ctl("diff", "org/small")
    assert (ended.code, ended.out) == (Exit.FAILED, "")
    assert "ended the answer early" in ended.err


def test_gc_says_what_goes_and_stays(daemon, ctl):
    assert ctl("gc").out == "there is nothing to remove\n"
    daemon.garbage = GarbageView(
        dry_run=True,
        goes=[GarbageItem(kind="revision", name="org/small@ab", size_bytes=MiB, why="beyond the 2 that are kept")],
        stays=[GarbageItem(kind="download", name="org/x", size_bytes=7, why="under way")],
        freed_bytes=MiB,
    )
    ended = ctl("gc", "--dry-run", "--interrupted", "0.5")
    assert ended.err == "1.0 MiB would be free again\n"
    _, goes, stays = ended.out.splitlines()
    assert goes.split("   ") == ["would go", "revision", "org/small@ab", "1.0 MiB", "beyond the 2 that are kept"]
    assert stays.split()[0] == "stays"
    assert daemon.asked[-1][3] == {"dry_run": True, "interrupted_s": 43200.0}
    assert ctl("gc", "--interrupted", "soon").code == Exit.USAGE
