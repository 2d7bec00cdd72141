"""Further names of a model: set, moved, taken back."""

from heliosd.wire import AliasView
from tests.api.world import World


async def test_an_alias_is_set_and_taken_back(it: World) -> None:
    async with it.local.put("/helios/v1/aliases/org/best", json={"ref": "smol"}) as response:
        assert AliasView.model_validate(await response.json()) == AliasView(alias="org/best", ref="tiny")
    async with it.local.get("/v1/models/org/best") as response:
        assert response.status == 200
    async with it.local.delete("/helios/v1/aliases/org/best") as response:
        assert AliasView.model_validate(await response.json()) == AliasView(alias="org/best", ref="tiny")
    await it.journal.flushed()
    assert [entry.message for entry in await it.journal.read(subject="tiny")] == [
        "org/best means tiny from now on",
        "org/best no longer means tiny",
    ]


async def test_what_is_not_there_is_not_found(it: World) -> None:
    async with it.local.put("/helios/v1/aliases/best", json={"ref": "nobody"}) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (404, "model_not_found")
    async with it.local.delete("/helios/v1/aliases/tiny") as response:
        assert (response.status, (await response.json())["error"]["code"]) == (404, "alias_not_found")
    async with it.local.put("/helios/v1/aliases/best", json={}) as response:
        assert (response.status, (await response.json())["error"]["param"]) == (400, "ref")


async def test_only_admins_may(it: World) -> None:
    async with it.http.put("/helios/v1/aliases/best", json={"ref": "tiny"}) as response:
        assert response.status == 401
