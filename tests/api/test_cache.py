"""What models take on the disk, asked over the API."""

from heliosd.errors import Unavailable
from heliosd.store.sharing import Shared
from heliosd.wire import CacheView, SharedView
from tests.api.world import World


async def test_what_each_model_takes(it: World) -> None:
    async with it.local.get("/helios/v1/cache") as response:
        view = CacheView.model_validate(await response.json())
    assert (view.logical_bytes, view.physical_bytes, view.ratio) == (1400, 700, 0.5)
    assert [(model.alone_bytes, model.shared_bytes, model.frees_bytes) for model in view.models] == [(0, 700, 0)] * 2


async def test_sharing_answers_when_it_is_done(it: World) -> None:
    it.store.shared = Shared(2, 100, 90, 1)
    async with it.local.post("/helios/v1/cache/share") as response:
        found = SharedView.model_validate(await response.json())
    assert found == SharedView(files=2, logical_bytes=100, freed_bytes=90, in_use=1)


async def test_a_full_disk_is_said(it: World) -> None:
    it.store.shared = Unavailable("cannot share it: the disk is full; remove a model", code="disk_full")
    async with it.local.post("/helios/v1/cache/share") as response:
        assert (response.status, (await response.json())["error"]["code"]) == (503, "disk_full")


async def test_only_admins_may(it: World) -> None:
    for method, path in (("GET", "/helios/v1/cache"), ("POST", "/helios/v1/cache/share")):
        async with it.http.request(method, path) as response:
            assert response.status == 401
