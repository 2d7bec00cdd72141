"""A blob is what its name says, or it is not there."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from heliosd.core.names import Digest
from heliosd.errors import CorruptData
from heliosd.store.blobs import Blobs
from heliosd.store.layout import Layout

CONTENT = os.urandom(10_000)
DIGEST = Digest(hashlib.sha256(CONTENT).hexdigest())


@contextmanager
def opened(path: Path, content: bytes = CONTENT) -> Iterator[int]:
    path.write_bytes(content)
    handle = os.open(path, os.O_RDONLY)
    yield handle
    os.close(handle)


async def nobody() -> frozenset[str]:
    return frozenset()


async def bring(blobs: Blobs, tmp_path: Path, content: bytes = CONTENT) -> Digest:
    with opened(tmp_path / "file", content) as source, blobs.hold() as hold:
        return (await blobs.ingest(source, hold, lambda _: None))[0]


async def test_a_file_becomes_a_read_only_blob(blobs: Blobs, layout: Layout, tmp_path: Path) -> None:
    reported: list[int] = []
    with opened(tmp_path / "file") as source, blobs.hold() as hold:
        assert await blobs.ingest(source, hold, reported.append) == (DIGEST, len(CONTENT))
        assert blobs.held == {DIGEST}
    assert blobs.held == frozenset()
    path = layout.root / "blobs" / "sha256" / DIGEST[:2] / DIGEST
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o444
    assert sum(reported) == len(CONTENT)
    assert await blobs.size(DIGEST) == len(CONTENT)
    assert await blobs.all() == {DIGEST}
    assert list(layout.incoming.iterdir()) == []


async def test_equal_bytes_are_stored_once(blobs: Blobs, layout: Layout, tmp_path: Path) -> None:
    await bring(blobs, tmp_path)
    before = layout.blob(DIGEST).stat()
    await bring(blobs, tmp_path)
    assert layout.blob(DIGEST).stat().st_ino == before.st_ino
    assert list(layout.incoming.iterdir()) == []


async def test_a_cut_blob_is_replaced(blobs: Blobs, layout: Layout, tmp_path: Path) -> None:
    await bring(blobs, tmp_path)
    layout.blob(DIGEST).unlink()
    layout.blob(DIGEST).write_bytes(CONTENT[:100])
    assert not await blobs.exists(DIGEST, len(CONTENT))
    await bring(blobs, tmp_path)
    assert layout.blob(DIGEST).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("digest", "size_bytes"),
    [(Digest("0" * 64), None), (DIGEST, 9_999), (None, 1)],
    ids=["digest", "size", "size alone"],
)
async def test_what_is_not_as_expected_leaves_nothing(
    blobs: Blobs, layout: Layout, tmp_path: Path, digest: Digest | None, size_bytes: int | None
) -> None:
    with opened(tmp_path / "file") as source, blobs.hold() as hold, pytest.raises(CorruptData, match=DIGEST):
        await blobs.ingest(source, hold, lambda _: None, digest=digest, size_bytes=size_bytes)
    assert await blobs.all() == set()
    assert list(layout.incoming.iterdir()) == []


async def test_a_file_of_our_own_is_moved(blobs: Blobs, layout: Layout) -> None:
    mine = layout.incoming / "made-here"
    mine.write_bytes(CONTENT)
    inode = mine.stat().st_ino
    with blobs.hold() as hold:
        assert await blobs.adopt(mine, hold, lambda _: None) == (DIGEST, len(CONTENT))
    assert layout.blob(DIGEST).stat().st_ino == inode
    assert not mine.exists()


async def test_a_part_goes_on_where_it_was_left(blobs: Blobs, layout: Layout) -> None:
    part = await blobs.open_part("key")
    part.write(CONTENT[:6_000])
    part.close()
    part = await blobs.open_part("key", git_size_bytes=len(CONTENT))
    while part.absorb(1_000):
        pass
    assert part.size_bytes == 6_000
    part.write(CONTENT[6_000:])
    assert part.git_sha1 == hashlib.sha1(b"blob 10000\0" + CONTENT, usedforsecurity=False).hexdigest()
    with blobs.hold() as hold:
        assert await blobs.commit(part, hold) == (DIGEST, len(CONTENT))
    assert not layout.part("key").exists()


async def test_a_link_in_the_way_of_a_part_is_not_followed(blobs: Blobs, layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    layout.part("key").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic link"):
        await blobs.open_part("key")


async def test_what_is_held_or_wanted_is_not_deleted(blobs: Blobs, tmp_path: Path) -> None:
    await bring(blobs, tmp_path)
    with blobs.hold() as hold:
        await hold.add(DIGEST)
        assert await blobs.delete([DIGEST], nobody) == 0

    async def somebody() -> frozenset[str]:
        return frozenset({DIGEST})

    assert await blobs.delete([DIGEST], somebody) == 0
    assert await blobs.exists(DIGEST)
    assert await blobs.delete([DIGEST], nobody) == len(CONTENT)
    assert await blobs.delete([DIGEST], nobody) == 0


async def test_who_commits_while_a_deletion_thinks_is_safe(blobs: Blobs, tmp_path: Path) -> None:
    """The hold is released while the deleter asks what is wanted; by then it is in the catalog."""
    await bring(blobs, tmp_path)
    catalog: set[str] = set()
    holding = blobs.hold()
    hold = holding.__enter__()
    await hold.add(DIGEST)

    async def wanted() -> frozenset[str]:
        answer = frozenset(catalog)
        catalog.add(DIGEST)
        holding.__exit__(None, None, None)
        return answer

    assert await blobs.delete([DIGEST], wanted) == 0
    assert await blobs.exists(DIGEST)


async def test_what_the_kernel_does_not_copy_is_copied_by_hand(blobs: Blobs, layout: Layout) -> None:
    source, end = os.pipe()
    os.write(end, CONTENT)
    os.close(end)
    with blobs.hold() as hold:
        assert await blobs.ingest(source, hold, lambda _: None) == (DIGEST, len(CONTENT))
    os.close(source)
    assert layout.blob(DIGEST).read_bytes() == CONTENT


async def test_a_file_of_many_pieces(blobs: Blobs, layout: Layout, tmp_path: Path) -> None:
    content = os.urandom(1000) * 20_000
    reported: list[int] = []
    with opened(tmp_path / "file", content) as source, blobs.hold() as hold:
        digest, size_bytes = await blobs.ingest(source, hold, reported.append)
    assert (digest, size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    assert layout.blob(digest).read_bytes() == content
    assert (sum(reported), len(reported)) == (len(content), 3)
