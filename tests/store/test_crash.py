"""`kill -9` at any moment: no blob is ever wrong, nothing committed is lost, nothing fetched is fetched again."""

import asyncio
import hashlib
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from heliosd.store.sources.fetch import CONNECTIONS
from heliosd.store.stored import Addition
from tests.store.conftest import OpenStore
from tests.store.crash_child import CHUNK_BYTES
from tests.store.hub_server import HubServer
from tests.store.models import model_files, write_folder
from tests.store.presented import read
from tests.store.related import folder, tuned

pytestmark = pytest.mark.slow

BIG = 8 << 20
PROJECT = Path(__file__).parents[2]


@asynccontextmanager
async def child(root: Path, *words: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the child for the length of the block, then kill it as hard as can be."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.store.crash_child", str(root), *words),
        stdout=asyncio.subprocess.PIPE,
        cwd=PROJECT,
        env={**os.environ, **environment},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def lines(process: asyncio.subprocess.Process) -> AsyncIterator[list[str]]:
    assert process.stdout is not None
    async for line in process.stdout:
        yield line.decode().split()


async def test_a_killed_download_goes_on_where_it_was(open_store: OpenStore, hub: HubServer, tmp_path: Path) -> None:
    hub.files["org/m"] = model_files(BIG) | {"model-2.safetensors": model_files(BIG, seed=2)["model.safetensors"]}
    hub.held = lambda path, first, at: at >= BIG // 2
    said = 0
    async with child(tmp_path, "fetch", "org/m", HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="0") as process:
        async for word, *rest in lines(process):
            if word == "done":
                said = int(rest[0])
            # Of both large files nearly half is here, and what is here was said to be written.
            if said > BIG * 0.7:
                break
    hub.sent_bytes = 0
    hub.flow.set()
    async with open_store(endpoint=hub.url) as store:
        model = await store.add(Addition("hub", "org/m"), lambda _: None)
        directory = await store.directory(model.revision)
        for path, content in hub.files["org/m"].items():
            assert (directory / path).read_bytes() == content
    total = sum(map(len, hub.files["org/m"].values()))
    assert hub.sent_bytes <= total - said + CONNECTIONS * CHUNK_BYTES


async def test_what_a_killed_daemon_had_complete_is_not_fetched_again(
    open_store: OpenStore, hub: HubServer, tmp_path: Path
) -> None:
    """A shard that is a blob already, of a model that is not committed, survives the start's sweep."""
    small = model_files(1 << 16, seed=2)["model.safetensors"]
    hub.files["org/m"] = model_files(BIG) | {"a.safetensors": small}
    hub.held = lambda path, first, at: path == "model.safetensors" and at >= BIG // 2
    digest = hashlib.sha256(small).hexdigest()
    blob = tmp_path / "store/blobs/sha256" / digest[:2] / digest
    async with child(tmp_path, "fetch", "org/m", HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="0") as process:
        async for word, *rest in lines(process):
            if word == "done" and int(rest[0]) > BIG * 0.3:
                break
        # The child, which waits for the other shard now, says nothing more.
        while not blob.exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    hub.log.clear()
    hub.flow.set()
    async with open_store(endpoint=hub.url) as store:
        await store.add(Addition("hub", "org/m"), lambda _: None)
    assert hub.asked("a.safetensors") == []


async def kill_after(process: asyncio.subprocess.Process, words: int, more_s: float, committed: set[str]) -> None:
    """Kill a child so long after it has said so many words; `committed` follows what it says of its models."""
    heard = 0
    async for word, *rest in lines(process):
        heard += 1
        if heard == words:
            asyncio.get_running_loop().call_later(more_s, process.kill)
        if word == "added":
            committed |= set(rest)
        elif word == "removing":
            committed -= set(rest)
    assert heard >= words, "the child ended by itself"


async def test_killing_at_random_moments_corrupts_and_loses_nothing(open_store: OpenStore, tmp_path: Path) -> None:
    folders = [
        str(write_folder(tmp_path / f"m{number}", model_files(2 << 20, seed=number // 2) | {"v.json": b"%d" % number}))
        for number in range(4)
    ]
    chance = random.Random(1)
    committed: set[str] = set()
    # Each child says this much before the shot, so a slow machine proves as much as a fast one.
    for words in (1, 2, 3, 4, 5, 7, 9, 12):
        async with child(tmp_path, "churn", *folders) as process:
            await kill_after(process, words, chance.uniform(0.0, 0.05), committed)
        async with open_store() as store:
            models = await store.models()
            names = {str(model.ref) for model in models}
            assert committed <= names
            for model in models:
                await store.directory(model.revision)
            known = {file.digest for model in models for file in model.manifest.files}
            blobs = [path for path in (tmp_path / "store/blobs").rglob("*") if path.is_file()]
            for path in blobs:
                assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
            assert {path.name for path in blobs} == known
            assert list((tmp_path / "store/incoming").iterdir()) == []
            committed = names


async def test_killing_while_files_are_shared_corrupts_and_loses_nothing(open_store: OpenStore, tmp_path: Path) -> None:
    contents = {"m0": tuned()} | {f"m{number}": tuned({number: 1, 20 + number: 2}) for number in range(1, 5)}
    folders = [str(folder(tmp_path / name, content)) for name, content in contents.items()]
    chance = random.Random(2)
    committed: set[str] = set()
    for words in range(1, 25):
        async with child(tmp_path, "relate", *folders) as process:
            await kill_after(process, words, chance.uniform(0.0, 0.06), committed)
        async with open_store() as store:
            models = {str(model.ref): model for model in await store.models()}
            assert committed <= models.keys()
            for name, model in models.items():
                assert read(await store.directory(model.revision), "model-0.safetensors") == contents[name]
            blobs = [path for path in (tmp_path / "store/blobs").rglob("*") if path.is_file()]
            for path in blobs:
                assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
            assert (await store.usage()).physical_bytes == sum(path.stat().st_size for path in blobs)
            assert list((tmp_path / "store/incoming").iterdir()) == []
            committed = set(models)
