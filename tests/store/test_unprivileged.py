"""What holds for a daemon that is not root: the kernel lets it open no file whose mode forbids it."""

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from multiprocessing import get_context
from pathlib import Path

import pytest

from heliosd.core.names import Digest
from heliosd.store.blobs import Blobs
from heliosd.store.durable import make_directory
from heliosd.store.layout import Layout
from heliosd.store.threads import Threads

NOBODY = 65534
CONTENT = b"weights" * 1000
DIGEST = Digest(hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of the unprivileged user; the test's own lies below one that only root may enter."""
    path = Path(tempfile.mkdtemp(prefix="helios-", dir="/tmp"))
    os.chown(path, *((NOBODY, NOBODY) if os.getuid() == 0 else (-1, -1)))
    yield path
    shutil.rmtree(path)


def unprivileged(work: Callable[[Path], Awaitable[None]], place: Path) -> None:
    """Run `work` in a forked child without root's rights: what is imported here need not be readable there."""

    def run() -> None:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        asyncio.run(work(place))

    child = get_context("fork").Process(target=run)
    child.start()
    child.join()
    assert child.exitcode == 0, "the traceback is on stderr"


async def die_between_finish_and_name(place: Path) -> None:
    layout, threads = Layout(place), Threads(1)
    for folder in (layout.blobs, layout.incoming):
        make_directory(folder)
    blobs = Blobs(layout, threads)
    part = await blobs.open_part(DIGEST)
    part.write(CONTENT)
    shard = layout.blob(DIGEST).parent
    make_directory(shard)
    shard.chmod(0o555)  # the part is finished, and then cannot get its name
    with blobs.hold() as hold, pytest.raises(PermissionError):
        await blobs.commit(part, hold)
    part.close()
    shard.chmod(0o755)
    again = await blobs.open_part(DIGEST)
    while again.absorb():
        pass
    with blobs.hold() as hold:
        assert await blobs.commit(again, hold, digest=DIGEST) == (DIGEST, len(CONTENT))
    assert blobs.path(DIGEST).stat().st_mode & 0o777 == 0o444
    threads.close()


def test_a_part_that_was_finished_but_not_named_can_be_taken_up_again(place: Path) -> None:
    unprivileged(die_between_finish_and_name, place)
