"""How fast a file comes into the store, hashed and durable: against `cp`, `sync` and `sha256sum` of the same file.

`python -m tests.bench.store_ingest [FOLDER]` prints the medians. Runs of both alternate; cold means that the file is
not in the page cache when they begin.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from heliosd.core.units import MiB
from heliosd.store.blobs import Blobs
from heliosd.store.durable import make_directory
from heliosd.store.layout import Layout
from heliosd.store.store import THREADS
from heliosd.store.threads import Threads

SIZE_BYTES = 512 * MiB
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Ingest:
    """Medians at one state of the page cache."""

    store_s: float
    tools_s: float

    @property
    def ratio(self) -> float:
        """Speed of the store ÷ speed of the tools."""
        return self.tools_s / self.store_s


def ingest_vs_limit(folder: Path) -> float:
    """The store's speed as a share of the tools', cold or warm, whichever is lower. `folder`: on the disk to measure.

    May be called with an event loop running or without one.
    """
    return min(each.ratio for each in measure(folder).values())


def measure(folder: Path, size_bytes: int = SIZE_BYTES, rounds: int = ROUNDS) -> dict[str, Ingest]:
    """By `cold` and `warm`."""
    with tempfile.TemporaryDirectory(dir=folder) as name, ThreadPoolExecutor(1) as pool:
        place = Path(name)
        file = place / "file"
        _write(file, size_bytes)

        def store() -> None:
            pool.submit(asyncio.run, _ingest(file, place / "store")).result()

        def tools() -> None:
            _tools(file, place / "copy")

        return {
            state: Ingest(*_medians(file, store, tools, rounds, cold=state == "cold")) for state in ("cold", "warm")
        }


def _write(file: Path, size_bytes: int) -> None:
    with file.open("wb") as out:
        for begin in range(0, size_bytes, MiB):
            out.write(os.urandom(min(MiB, size_bytes - begin)))
        out.flush()
        os.fsync(out.fileno())


def _medians(
    file: Path, store: Callable[[], None], tools: Callable[[], None], rounds: int, *, cold: bool
) -> tuple[float, float]:
    seconds: dict[Callable[[], None], list[float]] = {store: [], tools: []}
    for _ in range(rounds):
        for run, taken in seconds.items():
            with file.open("rb") as handle:
                if cold:
                    os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                else:
                    while handle.read(16 * MiB):
                        pass
            os.sync()
            began = time.perf_counter()
            run()
            taken.append(time.perf_counter() - began)
    return median(seconds[store]), median(seconds[tools])


async def _ingest(file: Path, root: Path) -> None:
    layout, threads = Layout(root), Threads(THREADS)
    for folder in (layout.blobs, layout.incoming):
        make_directory(folder)
    blobs = Blobs(layout, threads)
    source = os.open(file, os.O_RDONLY)
    try:
        with blobs.hold() as hold:
            await blobs.ingest(source, hold, lambda _: None)
    finally:
        os.close(source)
        threads.close()
        shutil.rmtree(root)


def _tools(file: Path, copy: Path) -> None:
    subprocess.run(["cp", file, copy], check=True)
    subprocess.run(["sync", copy], check=True)
    subprocess.run(["sha256sum", copy], check=True, stdout=subprocess.DEVNULL)
    copy.unlink()


if __name__ == "__main__":
    for state, figures in measure(Path(sys.argv[1] if sys.argv[1:] else tempfile.gettempdir())).items():
        print(f"{state}: store {figures.store_s:.3f} s, tools {figures.tools_s:.3f} s, ratio {figures.ratio:.3f}")
