"""A part that is filled out of order: what it remembers, and what it does not believe."""

import hashlib
import json
from pathlib import Path

import pytest

from heliosd.store.ranged_part import RangedPart, allocated_bytes, saved_pieces

DATA = bytes(range(256)) * 64


@pytest.fixture
def at(tmp_path: Path) -> tuple[Path, Path, int]:
    return tmp_path / "x.part", tmp_path / "x.journal", len(DATA)


def put(part: RangedPart, start: int, end: int) -> int:
    part.write(DATA[start:end], start)
    return part.landed(start, end)


def test_hashes_follow_what_is_there_without_a_gap(at: tuple[Path, Path, int]) -> None:
    part = RangedPart(*at, git=True)
    assert put(part, 8192, len(DATA)) == len(DATA) - 8192
    assert part.hashable_bytes == 0
    assert part.missing(0, len(DATA)) == ((0, 8192),)
    put(part, 0, 8192)
    while part.hashable_bytes:
        part.absorb()
    assert part.complete
    assert part.digest == hashlib.sha256(DATA).hexdigest()
    assert part.git_sha1 == hashlib.sha1(b"blob %d\0" % len(DATA) + DATA, usedforsecurity=False).hexdigest()


def test_the_next_one_knows_what_was_saved_and_no_more(at: tuple[Path, Path, int]) -> None:
    part = RangedPart(*at)
    put(part, 4096, 8192)
    part.save()
    put(part, 0, 100)
    part.close()
    again = RangedPart(*at)
    assert (again.here_bytes, again.missing(0, 9000)) == (4096, ((0, 4096), (8192, 9000)))
    put(again, 0, 100)
    again.keep()
    again.close()
    assert RangedPart(*at).here_bytes == 4196


def test_room_is_taken_before_anything_arrives(at: tuple[Path, Path, int]) -> None:
    RangedPart(*at).close()
    assert at[0].stat().st_size == len(DATA)
    assert allocated_bytes(at[0]) >= len(DATA)
    assert allocated_bytes(at[1]) == 0


@pytest.mark.parametrize(
    "journal", ["", "{", "[]", '{"pieces": [[0]]}', '{"pieces": [[5, 1]]}', '{"pieces": [[0, 99999]]}']
)
def test_a_journal_that_makes_no_sense_says_nothing(at: tuple[Path, Path, int], journal: str) -> None:
    at[1].write_text(journal)
    assert saved_pieces(at[1], at[2]) == ()


def test_a_journal_without_its_part_is_not_believed_later(at: tuple[Path, Path, int]) -> None:
    at[1].write_text(json.dumps({"pieces": [[0, len(DATA)]]}))
    RangedPart(*at).close()  # killed before anything was saved
    assert RangedPart(*at).here_bytes == 0


def test_a_link_in_its_place_is_not_followed(at: tuple[Path, Path, int], tmp_path: Path) -> None:
    at[0].symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        RangedPart(*at)
