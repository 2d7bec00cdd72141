"""Kills the store's process at random moments, and looks what is left.

    python -m tests.bench.kills [--kills N] [--seed N] [--json FILE]

Each life fetches a model from a slow hub on this machine over several connections, takes folders in and removes them
again, over and over, has the store keep once what fine-tunes have in common, moves blobs to a slower volume, back and
into RAM, and removes a model that was fetched before, all at once; it ends by SIGKILL at a moment drawn at random, one
life in ten while it begins. After each of them the store is opened and everything is looked at: no model that was said
to be added is gone, no blob is missing or has other bytes than its name says, every file reads as its digest says,
through a recipe or from the slower volume too, nothing lies about that nobody wants, and what has to be fetched again
is at most a chunk for each connection.
"""

import argparse
import asyncio
import hashlib
import multiprocessing
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from heliosd.core.names import Digest
from heliosd.core.units import KiB, MiB, format_bytes
from heliosd.state.database import Database
from heliosd.store.claims import Claims
from heliosd.store.layout import Layout
from heliosd.store.ranged_part import saved_pieces
from heliosd.store.store import Store
from heliosd.store.threads import Threads
from heliosd.store.tiers.tiers import TierLimits
from tests.bench.report import write_json
from tests.bench.table import print_table
from tests.store import crash_child
from tests.store.hub_server import HubServer, git_sha1, is_large, running
from tests.store.models import config, model_files, safetensors, write_folder
from tests.store.presented import read
from tests.store.related import folder, tuned

CHUNK_BYTES = 256 * KiB
CONNECTIONS = 4
ALLOWED_BYTES = CHUNK_BYTES * CONNECTIONS + KiB
"""To be fetched again: of each connection a chunk, and the two small files, which have no journal."""
SHARD_BYTES = 3 * MiB
RATE_BYTES_PER_S = 3.0 * MiB
"""Of each connection."""
LONGEST_S = 1.2
"""From the moment on that a life's end is counted from."""


@dataclass
class Found:
    """What became of all lives."""

    kills: int = 0
    starting: int = 0
    """Of those, before the store was open."""
    said: Counter[str] = field(default_factory=Counter)
    """Models that were added, removed; times that a store was open."""
    interrupted: Counter[str] = field(default_factory=Counter)
    """By what was under way when a life ended; several things at once are."""
    recipes: int = 0
    demoted: int = 0
    """Files kept as recipes and blobs on the slower volume, as they were found after each life, all added up."""
    fetched: int = 0
    """Models that came from the hub, each over several lives."""
    again_bytes: list[int] = field(default_factory=list)
    """Sent by the hub in each life, and not there afterwards."""
    faults: list[str] = field(default_factory=list)

    def fault(self, what: str) -> None:
        self.faults.append(f"after kill {self.kills}: {what}")

    def json(self) -> dict[str, object]:
        chunk = CHUNK_BYTES * CONNECTIONS
        return {
            "kills": self.kills,
            "faults": len(self.faults),
            "interrupted": dict(sorted(self.interrupted.items())),
            "most_fetched_again_chunks_per_connection": round(max(self.again_bytes, default=0) / chunk, 3),
        }


@dataclass(frozen=True, slots=True)
class Moment:
    """When a life ends."""

    after: str
    """This word, or the start of the process."""
    life_s: float


def drawn(chance: random.Random) -> Moment:
    (after,) = chance.choices(("", "open", "fetching"), (1, 3, 6))
    return Moment(after, chance.uniform(0.0, LONGEST_S))


async def killed(root: Path, kills: int, seed: int) -> Found:
    """Do it."""
    chance, found, committed = random.Random(seed), Found(), set[str]()
    layout = Layout(root / "store")
    folders = [
        str(write_folder(root / f"m{each}", model_files(MiB, seed=each // 2) | {"v.json": b"%d" % each}))
        for each in range(4)
    ]
    contents = {
        f"r{number}": tuned({number: 1, 20 + number: 2} if number else {}, layer_bytes=32 * KiB) for number in range(3)
    }
    folders += ["--", *(str(folder(root / name, content)) for name, content in contents.items())]
    async with running(HubServer(rate_bytes_per_s=RATE_BYTES_PER_S)) as hub:
        number, durable_bytes = 0, 0
        hub.files[repository(number)] = repository_files(number)
        while found.kills < kills:
            wanted, before = repository(number), repository(number - 1)
            sent_bytes = hub.sent_by[wanted]
            moment = drawn(chance)
            await one_life(found, committed, moment, hub.url, root, wanted, before, *folders)
            while hub.at_once:  # noqa: ASYNC110 - the server notices at its next write that nobody reads
                await asyncio.sleep(0.005)
            committed = await look(found, layout, root, committed)
            now_bytes = here_bytes(layout, hub.files[wanted])
            found.again_bytes.append(max(0, hub.sent_by[wanted] - sent_bytes - (now_bytes - durable_bytes)))
            if found.again_bytes[-1] > ALLOWED_BYTES:
                found.fault(f"{format_bytes(found.again_bytes[-1])} have to be fetched again")
            durable_bytes = now_bytes
            if wanted in committed:
                number, durable_bytes = number + 1, 0
                found.fetched += 1
                hub.files[repository(number)] = repository_files(number)
    return found


def repository(number: int) -> str:
    return f"org/f{number}"


def repository_files(number: int) -> dict[str, bytes]:
    """Two shards and two small files that no other repository has."""
    return {
        "config.json": config(number=number),
        "tokenizer.json": b'{"number": %d}' % number,
        **{
            f"model-{shard}.safetensors": safetensors(SHARD_BYTES, 1000 + 2 * number + shard, f"w{shard}")
            for shard in range(2)
        },
    }


async def one_life(found: Found, committed: set[str], moment: Moment, endpoint: str, root: Path, *words: str) -> None:
    """Start a process, kill it when its time has come, and note in `committed` what it said."""
    heard, under_way = 0, Counter[str]()
    async with child(endpoint, CHUNK_BYTES, CONNECTIONS, str(root), "mixed", *words) as (process, said):
        if not moment.after:
            asyncio.get_running_loop().call_later(moment.life_s, process.kill)
        async for line in said:
            word, *rest = line.decode().split()
            heard += 1
            match word:
                case "begin":
                    under_way[rest[0]] += 1
                case "end":
                    under_way[rest[0]] -= 1
                case _:
                    found.said[word] += 1
            if word == moment.after:
                asyncio.get_running_loop().call_later(moment.life_s, process.kill)
            if word == "added":
                committed |= set(rest)
            elif word == "removing":
                committed -= set(rest)
    found.kills += 1
    found.starting += heard == 0
    found.interrupted.update(what for what, count in under_way.items() if count)
    if process.exitcode != -9:
        found.fault(f"the process ended by itself with {process.exitcode}")


@asynccontextmanager
async def child(*words: object) -> AsyncIterator[tuple[ForkServerProcess, asyncio.StreamReader]]:
    """A process with all modules loaded, and what it says."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.store.crash_child", "huggingface_hub.hf_api"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=crash_child.run, args=(theirs, *words))
    await asyncio.to_thread(process.start)
    theirs.close()
    said = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    handle = os.fdopen(os.dup(ours.fileno()), "rb")
    ours.close()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(said), handle)
    try:
        yield process, said
    finally:
        transport.close()
        process.kill()
        await asyncio.to_thread(process.join)


async def look(found: Found, layout: Layout, root: Path, committed: set[str]) -> set[str]:
    """Open the store as the next daemon would and examine all of it; returns the models that it has."""
    database, threads = Database(root / "state.sqlite"), Threads(1)
    await database.open()
    store = Store(layout.root, database, tiers=TierLimits(disk_dir=root / "disk"))
    swept = await store.open()
    if swept.missing:
        found.fault(f"{len(swept.missing)} blobs are lost")
    models = await store.models()
    names = {str(model.ref) for model in models}
    if committed - names:
        found.fault(f"models are lost: {', '.join(sorted(committed - names))}")
    for model in models:
        directory = await store.directory(model.revision)
        for file in model.manifest.files:
            if hashlib.sha256(read(directory, file.path)).hexdigest() != file.digest:
                found.fault(f"{model.ref} has other bytes in {file.path}")
    claims = await Claims(layout, threads).all(time.time())
    claimed = {key for claim in claims for key in claim.keys}
    blobs_of = await store.blobs_of(model.manifest for model in models)
    known = {blob for blobs in blobs_of.values() for blob in blobs}
    found.recipes += sum(blobs != {digest} for digest, blobs in blobs_of.items())
    blobs = [path for path in layout.blobs.rglob("*") if path.is_file()]
    for path in blobs:
        if hashlib.sha256(path.read_bytes()).hexdigest() != path.name:
            found.fault(f"the blob {path.name} has other bytes")
    if leaked := {path.name for path in blobs} - known - claimed:
        found.fault(f"blobs are leaked: {', '.join(leaked)}")
    if stray := [path.name for path in layout.incoming.iterdir() if not _is_wanted(path, claimed)]:
        found.fault(f"files are leaked: {', '.join(stray)}")
    seen, there = await store.tiers.survey(), Layout(root / "disk")
    found.demoted += len(seen.disk)
    if on_disk := {path.name for path in there.blobs.rglob("*") if path.is_file()} ^ seen.disk.keys():
        found.fault(f"the slower volume and the links to it differ: {', '.join(sorted(on_disk))}")
    if stray := [path.name for path in there.incoming.iterdir()]:
        found.fault(f"files are leaked on the slower volume: {', '.join(stray)}")
    if stale := {path.name for path in layout.revisions.iterdir()} - {model.revision for model in models}:
        found.fault(f"directories are leaked: {', '.join(stale)}")
    await store.close()
    await database.close()
    threads.close()
    return names


def _is_wanted(path: Path, claimed: set[str]) -> bool:
    return path.suffix == ".claim" or (path.suffix in (".part", ".journal") and path.stem in claimed)


def here_bytes(layout: Layout, files: dict[str, bytes]) -> int:
    """How much of these files need not come again: in blobs, and in parts as far as their journals say so."""
    count = 0
    for path, content in files.items():
        digest = Digest(hashlib.sha256(content).hexdigest())
        if layout.blob(digest).exists():
            count += len(content)
            continue
        key = digest if is_large(path) else f"git-{git_sha1(content)}"
        if layout.part(key).exists():
            count += sum(end - start for start, end in saved_pieces(layout.part_journal(key), len(content)))
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the result as one JSON object")
    given = parser.parse_args()
    root, began = Path(tempfile.mkdtemp(prefix="kills-")), time.monotonic()
    try:
        found = asyncio.run(killed(root, given.kills, given.seed))
    finally:
        shutil.rmtree(root)
    again = sorted(found.again_bytes)
    rows = [
        ("kills", f"{found.kills}"),
        ("of those while the store was being opened", f"{found.starting}"),
        ("models fetched, in several lives each", f"{found.fetched}"),
        ("models added, all sources", f"{found.said['added']}"),
        ("removals begun", f"{found.said['removing']}"),
        *((f"kills during a {what}", f"{count}") for what, count in sorted(found.interrupted.items())),
        ("files found kept as recipes, over all kills", f"{found.recipes}"),
        ("blobs found on the slower volume, over all kills", f"{found.demoted}"),
        ("fetched again after a kill, median", format_bytes(again[len(again) // 2])),
        ("fetched again after a kill, most", format_bytes(again[-1])),
        (f"allowed: {CONNECTIONS} connections with a chunk each", format_bytes(ALLOWED_BYTES)),
        ("lost, wrong or leaked, or fetched again beyond that", f"{len(found.faults)}"),
        ("time", f"{time.monotonic() - began:.0f} s"),
    ]
    print_table("What is left when the store's process is killed", ("", ""), rows, found.faults[:20])
    write_json(found.json(), given.json)
    raise SystemExit(bool(found.faults))


if __name__ == "__main__":
    main()
