"""Files by digest, as other nodes fetch them: ranges, refusals, and that nothing goes while it is sent."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from heliosd.api.byte_range import asked_span
from heliosd.core.names import Digest, ModelRef
from heliosd.state.database import Database
from heliosd.store.sources.hub import HubAccess
from heliosd.store.store import Store
from heliosd.store.stored import Addition, StoredModel
from tests.api.world import World, world
from tests.store.models import model_files, write_folder
from tests.store.peer_server import PROOF, sha256

FILES = model_files(1 << 22)
WEIGHTS = FILES["model.safetensors"]
SIZE = len(WEIGHTS)
PATH = f"/helios/v1/blobs/{sha256(WEIGHTS)}"


@dataclass
class Place:
    world: World
    store: Store
    model: StoredModel
    private: set[str]

    def get(self, path: str = PATH, method: str = "GET", **headers: str) -> Any:
        return self.world.http.request(
            method, path, headers=PROOF | {k.replace("_", "-"): v for k, v in headers.items()}
        )


@asynccontextmanager
async def a_place(tmp_path: Path) -> AsyncIterator[Place]:
    private: set[str] = set()

    def may_give(ref: ModelRef, origin: Mapping[str, Any]) -> bool:
        return str(ref) not in private

    database = Database(tmp_path / "state.sqlite")
    await database.open()
    store = Store(tmp_path / "store", database, hub=HubAccess(offline=True), may_give=may_give)
    await store.open()
    folder = write_folder(tmp_path / "m", FILES)
    model = await store.add(Addition("directory", str(folder), ModelRef("org/m")), lambda progress: None)
    async with world(real=store) as it:
        yield Place(it, store, model, private)
    await store.close()
    await database.close()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with a_place(tmp_path) as place:
        yield place


async def test_a_file_is_sent_whole(place: Place) -> None:
    async with place.get() as answer:
        assert answer.status == 200
        assert answer.headers["ETag"] == f'"{sha256(WEIGHTS)}"'
        assert answer.headers["Accept-Ranges"] == "bytes"
        assert answer.content_length == SIZE
        assert await answer.read() == WEIGHTS
    async with place.get(method="HEAD") as answer:
        assert (answer.status, answer.content_length, await answer.read()) == (200, SIZE, b"")


@pytest.mark.parametrize(
    ("asked", "begin", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-1048580", 5, 1048581),
        (f"bytes={SIZE - 3}-", SIZE - 3, SIZE),
        ("bytes=-7", SIZE - 7, SIZE),
        (f"bytes=10-{SIZE * 9}", 10, SIZE),
        (f"bytes=-{SIZE * 9}", 0, SIZE),
    ],
)
async def test_a_range_is_sent(place: Place, asked: str, begin: int, end: int) -> None:
    async with place.get(Range=asked) as answer:
        assert answer.status == 206
        assert answer.headers["Content-Range"] == f"bytes {begin}-{end - 1}/{SIZE}"
        assert await answer.read() == WEIGHTS[begin:end]


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", f"bytes={SIZE + 5}-{SIZE + 9}", "bytes=-0"])
async def test_a_range_behind_the_end_is_refused(place: Place, asked: str) -> None:
    async with place.get(Range=asked) as answer:
        assert answer.status == 416
        assert answer.headers["Content-Range"] == f"bytes */{SIZE}"
        assert (await answer.json())["error"]["code"] == "bad_range"


@pytest.mark.parametrize(
    "asked",
    ["bytes=5-2", "bytes=-", "bytes=0-1,4-5", "lines=1-2", "bytes=a-b", "bytes=1" + "0" * 30 + "-"],
)
async def test_what_is_no_single_range_gets_all(place: Place, asked: str) -> None:
    async with place.get(Range=asked) as answer:
        assert answer.status == 200
        assert len(await answer.read()) == SIZE


def test_only_digits_are_numbers() -> None:
    assert asked_span("bytes=3-4", 10) == (3, 5)
    assert asked_span("bytes=٣-٤", 10) is None


async def test_tags_are_compared(place: Place) -> None:
    tag = f'"{sha256(WEIGHTS)}"'
    async with place.get(If_None_Match=tag) as answer:
        assert (answer.status, await answer.read()) == (304, b"")
    async with place.get(Range="bytes=0-9", If_Range=tag) as answer:
        assert answer.status == 206
    async with place.get(Range="bytes=0-9", If_Range='"another"') as answer:
        assert (answer.status, answer.content_length) == (200, SIZE)


@pytest.mark.parametrize("digest", ["x" * 64, "a" * 63, "A" * 64, "..%2f..%2fetc%2fpasswd", "%00", "0x" + "a" * 62])
async def test_what_is_no_digest_is_refused(place: Place, digest: str) -> None:
    async with place.get(f"/helios/v1/blobs/{digest}") as answer:
        assert answer.status in (400, 404)
        assert (await answer.json())["error"]["code"] in ("bad_digest", "unknown_path")


async def test_what_is_not_here_whole_is_not_found(place: Place, tmp_path: Path) -> None:
    async with place.get(f"/helios/v1/blobs/{'a' * 64}") as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (404, "blob_not_found")
    unfinished = tmp_path / "store" / "incoming" / f"{'a' * 64}.part"
    unfinished.write_bytes(b"half")
    async with place.get(f"/helios/v1/blobs/{'a' * 64}") as answer:
        assert answer.status == 404


async def test_who_is_no_peer_and_no_admin_gets_nothing(place: Place) -> None:
    for headers in ({}, {"x-helios-peer": "bad"}, {"Authorization": "Bearer nonsense"}):
        async with place.world.http.get(PATH, headers=headers) as answer:
            assert answer.status == 401
        async with place.world.http.get("/helios/v1/models/org/m/manifest", headers=headers) as answer:
            assert answer.status == 401


async def test_a_private_model_is_for_admins_only(place: Place) -> None:
    place.private.add("org/m")
    place.store.serving.changed()
    async with place.get() as answer:
        assert answer.status == 404
    async with place.get("/helios/v1/models/org/m/manifest") as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (403, "not_shared")
    async with place.world.local.get(PATH) as answer:
        assert await answer.read() == WEIGHTS
    place.private.clear()
    place.store.serving.changed()
    async with place.get() as answer:
        assert answer.status == 200


async def test_what_a_private_model_shares_with_an_open_one_is_given(place: Place, tmp_path: Path) -> None:
    changed = FILES["config.json"] + b"\n"
    other = write_folder(tmp_path / "n", {**FILES, "config.json": changed})
    await place.store.add(Addition("directory", str(other), ModelRef("org/n")), lambda progress: None)
    place.private.add("org/n")
    place.store.serving.changed()
    async with place.get() as answer:
        assert answer.status == 200
    async with place.get(f"/helios/v1/blobs/{sha256(changed)}") as answer:
        assert answer.status == 404


async def test_the_manifest_tells_what_to_fetch_and_no_path_of_this_machine(place: Place) -> None:
    async with place.get("/helios/v1/models/org/m/manifest") as answer:
        body = await answer.json()
    assert {file["path"]: file["digest"] for file in body["files"]} == {
        path: sha256(content) for path, content in FILES.items()
    }
    assert body["origin"] == {"kind": "directory", "allow_pickle": False}
    assert (body["ref"], body["revision"]) == ("org/m", place.model.revision)


async def test_a_removed_model_stays_until_it_is_sent(place: Place, tmp_path: Path) -> None:
    digest = Digest(sha256(WEIGHTS))
    async with place.store.serving.file(digest, to_peer=True) as served:
        await place.store.remove(ModelRef("org/m"))
        assert await served.read(SIZE - 5, 5) == WEIGHTS[-5:]
        kept = tmp_path / "store" / "blobs" / "sha256" / digest[:2] / digest
        assert kept.exists()
    assert not kept.exists()
    async with place.get() as answer:
        assert answer.status == 404


async def test_many_at_once_are_sent_some_are_told_to_come_again(place: Place) -> None:
    async def fetch() -> int:
        async with place.get() as answer:
            await answer.read()
            return int(answer.status)

    async with asyncio.TaskGroup() as tasks:
        answers = [tasks.create_task(fetch()) for _ in range(80)]
    assert {answer.result() for answer in answers} <= {200, 503}
    assert await fetch() == 200


async def test_who_leaves_in_the_middle_lets_go(place: Place) -> None:
    answer = await place.get()
    await answer.content.readexactly(10)
    answer.close()
    async with asyncio.timeout(10):
        for _ in range(64):
            await place.world.parts.sending.acquire()
