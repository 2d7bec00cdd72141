"""Whom of the cluster the store asks for files, and who is left alone for a while."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from heliosd.cluster.member import MemberState, Meta
from heliosd.cluster.peers import Peers
from heliosd.config_sources import load_settings
from heliosd.core.names import Digest, ModelRef, PeerName
from heliosd.nearby_files import DISTRUSTED_S, LEFT_ALONE_S, NearbyFiles, may_give
from heliosd.state.database import Database
from heliosd.state.journal import Journal
from heliosd.telemetry.metrics import Metrics
from tests.cluster.nodes import KEY, peer, serving
from tests.cluster.test_peers import Told

DIGEST = Digest("a" * 64)
REF = ModelRef("org/m")
MANIFEST = {
    "files": [{"path": "config.json", "digest": "b" * 64, "size_bytes": 2}],
    "origin": {"kind": "hub", "location": "org/m"},
}


@dataclass
class Here:
    nearby: NearbyFiles
    told: Told
    now: float = 0.0
    asked: list[str] = field(default_factory=list)

    async def holders(self, size_bytes: int = 5) -> list[str]:
        return [each.node for each in await self.nearby.holders(DIGEST, size_bytes)]


def node(sizes: dict[str, int], created_at: float, here: list[str], name: str):  # type: ignore[no-untyped-def]
    async def answer(request: web.Request) -> web.StreamResponse:
        here.append(f"{name} {request.method} {request.path}")
        if not request.headers.get("x-helios-peer", "").startswith("h1."):
            return web.Response(status=401)
        if request.path == "/helios/v1/models/org/m@main/manifest":
            return web.json_response(MANIFEST | {"created_at": created_at})
        size = sizes.get(request.path.rpartition("/")[2])
        return web.Response(status=404) if size is None else web.Response(body=b"x" * size)

    return answer


@asynccontextmanager
async def a_cluster(tmp_path: Path) -> AsyncIterator[Here]:
    """East and west have the file, south another size of it, north nothing; north is the one with the oldest model."""
    told, asked = Told(), list[str]()
    peers = Peers(PeerName("me"), told, Meta(None, "1"), lambda holds: None, key=KEY)
    database = Database(tmp_path / "state.sqlite")
    await database.open()
    metrics = Metrics()
    here = Here(NearbyFiles(peers, Journal(database), metrics, lambda: here.now), told, asked=asked)
    sizes = {"east": {DIGEST: 5}, "west": {DIGEST: 5}, "south": {DIGEST: 6}, "north": {}}
    async with asyncio.TaskGroup() as tasks:
        peers.start(tasks)
        async with (
            serving(node(sizes["east"], 2.0, asked, "east")) as east,
            serving(node(sizes["west"], 3.0, asked, "west")) as west,
            serving(node(sizes["south"], 1.0, asked, "south")) as south,
            serving(node(sizes["north"], 0.0, asked, "north")) as north,
        ):
            for name, url in (("east", east), ("west", west), ("south", south), ("north", north)):
                told.seen[name] = peer(name, api_url=url)
            yield here
            await peers.close()
    await database.close()


async def test_those_are_asked_who_have_all_of_it(tmp_path: Path) -> None:
    async with a_cluster(tmp_path) as here:
        assert await here.holders() == ["east", "west"]
        assert await here.holders(6) == ["south"]
        assert await here.holders(7) == []
        (east, _) = await here.nearby.holders(DIGEST, 5)
        assert str(east.url).endswith(f"/helios/v1/blobs/{DIGEST}")
        assert east.proof().keys() == {"x-helios-peer"}


async def test_the_newest_model_of_a_name_is_offered_first(tmp_path: Path) -> None:
    async with a_cluster(tmp_path) as here:
        offers = await here.nearby.offers(REF)
        assert [offer.node for offer in offers] == ["west", "east", "south", "north"]
        (file,) = offers[0].files
        assert (file.path, file.digest, file.size_bytes) == ("config.json", "b" * 64, 2)
        assert await here.nearby.offers(ModelRef("org/none")) == ()


async def test_who_has_gone_or_cannot_be_reached_has_nothing(tmp_path: Path) -> None:
    async with a_cluster(tmp_path) as here:
        url = here.told.seen["east"].api_url
        here.told.seen["east"] = peer("east", api_url=url, state=MemberState.DEAD)
        here.told.seen["west"] = peer("west", api_url="http://127.0.0.1:9")
        assert await here.holders() == []
        here.told.seen["east"] = peer("east")
        assert await here.holders() == []


@pytest.mark.parametrize(("lied", "pause_s"), [(False, LEFT_ALONE_S), (True, DISTRUSTED_S)])
async def test_who_failed_is_left_alone_for_a_while(tmp_path: Path, lied: bool, pause_s: float) -> None:
    async with a_cluster(tmp_path) as here:
        here.nearby.failed("east", "org/m/model.safetensors", "it broke", lied=lied)
        here.asked.clear()
        assert await here.holders() == ["west"]
        assert not [line for line in here.asked if line.startswith("east")]
        here.now = pause_s
        assert await here.holders() == ["west", "east"], "who had a file is asked first"


@pytest.mark.parametrize(
    ("store", "own", "restricted", "given"),
    [
        (True, None, False, True),
        (True, None, True, False),
        (True, True, True, True),
        (True, False, False, False),
        (False, None, False, False),
        (False, True, False, True),
    ],
)
def test_the_operator_says_who_may_have_what(
    tmp_path: Path, store: bool, own: bool | None, restricted: bool, given: bool
) -> None:
    models = {} if own is None else {"org/m": {"share_with_peers": own}}
    flags = {"node.state_dir": str(tmp_path), "api.socket": str(tmp_path / "s"), "store.share_with_peers": store}
    environ = {"HELIOS_MODELS": json.dumps(models), "HOME": str(tmp_path)}
    settings = load_settings(flags, environ).settings
    assert may_give(settings, REF, {"restricted": True} if restricted else {}) is given
    assert may_give(settings, ModelRef("org/m", "v1"), {"restricted": True} if restricted else {}) is given
