"""Models: listed for everybody's client, added with progress, removed when nobody uses them."""

import asyncio
import json
from typing import Any

from heliosd.core.names import ModelRef
from heliosd.core.units import MiB
from heliosd.errors import SourceFailed
from heliosd.estimation.known import Known, known_from
from heliosd.estimation.launch import Launch
from heliosd.estimation.weights import adapter_room
from heliosd.lease import Judgement
from heliosd.store.sources.source import Progress
from heliosd.store.stored import Adapter
from heliosd.wire import EstimateView, ModelDetail, ModelList, ModelView
from tests.api.world import FOOTPRINT, World, stored
from tests.node.world import CONFIG

WANTED = {"source": "directory", "location": "/models/x"}


def events(text: str) -> list[tuple[str, Any]]:
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    pairs = [block.split("\n", 1) for block in blocks]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in pairs]


async def test_the_openai_client_lists_models(it: World) -> None:
    import openai

    async with openai.AsyncOpenAI(base_url=f"{it.url}/v1", api_key="none") as client:
        listed = [model async for model in client.models.list()]
        one = await client.models.retrieve("org/other")
        alias = await client.models.retrieve("smol")
    assert [(model.id, model.object, model.owned_by) for model in listed] == [
        ("tiny", "model", "helios"),
        ("org/other", "model", "helios"),
        ("far", "model", "east"),
    ]
    assert (one.id, one.created) == ("org/other", 1_700_000_000)
    assert alias.id == "smol"


async def test_the_anthropic_client_lists_models(it: World) -> None:
    import anthropic

    async with anthropic.AsyncAnthropic(base_url=it.url, api_key="none") as client:
        listed = [model async for model in client.models.list()]
        one = await client.models.retrieve("tiny")
    assert [model.id for model in listed] == ["tiny", "org/other", "far"]
    assert (one.type, one.display_name, one.created_at.year) == ("model", "tiny", 2023)


async def test_an_unknown_model_is_not_found(it: World) -> None:
    async with it.http.get("/v1/models/nobody") as response:
        assert (response.status, (await response.json())["error"]["code"]) == (404, "model_not_found")


async def test_the_admin_list_has_states_and_what_peers_hold(it: World) -> None:
    async with it.local.get("/helios/v1/models") as response:
        models = ModelList.model_validate(await response.json()).models
    assert [(model.ref, model.state, model.peer) for model in models] == [
        ("tiny", "ready", None),
        ("org/other", "stored", None),
        ("far", "stored", "east"),
    ]


async def test_one_model_by_ref_quoted_ref_and_alias(it: World) -> None:
    for path in ("org/other", "org%2Fother"):
        async with it.local.get(f"/helios/v1/models/{path}") as response:
            shown = ModelDetail.model_validate(await response.json())
        assert (shown.ref, shown.estimate) == ("org/other", None)
    async with it.local.get("/helios/v1/models/smol") as response:
        shown = ModelDetail.model_validate(await response.json())
    assert shown.ref == "tiny"
    assert [file.path for file in shown.files] == ["config.json"]
    assert shown.estimate is not None
    assert shown.kv_bytes_per_token == shown.estimate.kv_bytes_per_token == 23_040


async def test_a_model_in_use_is_not_removed(it: World) -> None:
    async with it.local.delete("/helios/v1/models/smol") as response:
        assert (response.status, (await response.json())["error"]["code"]) == (409, "model_in_use")
    async with it.local.delete("/helios/v1/models/org/other") as response:
        assert await response.json() == {"ref": "org/other", "freed_bytes": 700}


async def test_adding_tells_progress_and_then_the_model(it: World) -> None:
    it.store.steps = [Progress("list"), Progress("fetch", "a", 1, 9), Progress("fetch", "a", 9, 9, 3.0, 0.0)]
    it.store.outcome = stored("x")
    async with it.local.post("/helios/v1/models", json=WANTED | {"ref": "x", "alias": "y"}) as response:
        assert response.content_type == "text/event-stream"
        told = events(await response.text())
    assert [name for name, _ in told] == ["progress", "progress", "done"]
    assert told[1][1] == {
        "phase": "fetch",
        "item": "a",
        "done_bytes": 9,
        "total_bytes": 9,
        "rate_bytes_per_s": 3.0,
        "eta_s": 0.0,
    }
    assert ModelView.model_validate(told[2][1]).ref == "x"
    await it.journal.flushed()
    said = [entry.message for entry in await it.journal.read(kinds=("model",))]
    assert said == ["x was added from hub x"], "from a folder nothing is fetched"
    [wanted] = it.store.wanted
    assert (str(wanted.ref), wanted.alias, wanted.location) == ("x", "y", "/models/x")


async def test_the_beginning_of_a_fetch_is_noted_once(it: World) -> None:
    it.store.steps = [Progress("list"), Progress("fetch", "a", 1, 9), Progress("fetch", "a", 9, 9, 3.0, 0.0)]
    it.store.outcome = stored("x")
    it.hub.held["org/x"] = Known()
    async with it.local.post("/helios/v1/models", json={"source": "hub", "location": "org/x", "ref": "x"}) as response:
        await response.text()
    await it.journal.flushed()
    said = [entry.message for entry in await it.journal.read(kinds=("model",))]
    assert said == ["x is being fetched: 9 B in all", "x was added from hub x"]


async def test_what_never_fits_is_refused_before_it_is_fetched(it: World) -> None:
    it.hub.held["org/big"] = Known()
    it.node.judgement = Judgement("org/big", FOOTPRINT, 1, 8192, 0, 0, "never_fits", "org/big needs 9 TiB", ())
    wanted = {"source": "hub", "location": "org/big", "revision": "v2"}
    async with it.local.post("/helios/v1/models", json=wanted) as response:
        [(name, body)] = events(await response.text())
    assert (name, body["error"]["code"]) == ("error", "model_cannot_fit")
    assert "org/big needs 9 TiB; fetch it nevertheless with `--anyway`" in body["error"]["message"]
    assert it.store.wanted == []
    assert it.hub.asked == [("org/big", "v2")]
    assert [str(each.ref) for each in it.node.prospects] == ["org/big@v2"]
    it.store.outcome = stored("org/big")
    async with it.local.post("/helios/v1/models", json=wanted | {"anyway": True}) as response:
        [(name, _)] = events(await response.text())
    assert (name, len(it.store.wanted)) == ("done", 1)
    await it.journal.flushed()
    said = [entry.message for entry in await it.journal.read(kinds=("model",))]
    assert said[0].startswith("org/big@v2 was refused before its fetch: org/big needs 9 TiB")
    assert said[1].startswith("org/big@v2 is fetched anyway: org/big needs 9 TiB")


async def test_what_fits_or_cannot_be_judged_is_fetched(it: World) -> None:
    it.hub.held["org/small"] = Known()
    async with it.local.post("/helios/v1/models", json={"source": "hub", "location": "org/small"}) as response:
        assert events(await response.text())[-1][0] == "done"
    it.node.judgement = Judgement("x", FOOTPRINT, 1, 8192, 0, 0, "never_fits", "needs 9 TiB", ())
    async with it.local.post("/helios/v1/models", json=WANTED) as response:
        assert events(await response.text())[-1][0] == "done", "a folder is here already"
    it.node.devices = ()
    async with it.local.post("/helios/v1/models", json={"source": "hub", "location": "org/small"}) as response:
        assert events(await response.text())[-1][0] == "done", "a node without devices only keeps models"
    assert len(it.store.wanted) == 3


async def test_the_hubs_refusal_comes_before_anything_is_added(it: World) -> None:
    async with it.local.post("/helios/v1/models", json={"source": "hub", "location": "org/none"}) as response:
        [(name, body)] = events(await response.text())
    assert (name, body["error"]["code"], it.store.wanted) == ("error", "repository_not_found", [])


async def test_pickles_are_allowed_by_whoever_asks_or_by_the_configuration_of_that_model(it: World) -> None:
    it.store.outcome = stored("x")
    for more in ({"ref": "x"}, {"ref": "x", "allow_pickle": True}, {"ref": "trusted"}):
        async with it.local.post("/helios/v1/models", json=WANTED | more) as response:
            await response.read()
    assert [wanted.allow_pickle for wanted in it.store.wanted] == [False, True, True]


async def test_progress_comes_while_the_work_goes_on(it: World) -> None:
    it.store.steps = [Progress("fetch", "a", 1, 9)]
    it.store.go.clear()
    async with it.local.post("/helios/v1/models", json=WANTED) as response:
        while b"event: progress" not in await asyncio.wait_for(response.content.readline(), 5):
            pass
        it.store.go.set()
        assert "event: done" in await response.text()


async def test_what_goes_wrong_is_the_last_event(it: World) -> None:
    it.store.outcome = SourceFailed("cannot read /models/x: no config.json")
    async with it.local.post("/helios/v1/models", json=WANTED) as response:
        [(name, body)] = events(await response.text())
    assert (name, body["error"]["code"]) == ("error", "source_failed")


async def test_leaving_stops_the_work(it: World) -> None:
    it.store.go.clear()
    response = await it.local.post("/helios/v1/models", json=WANTED)
    await response.content.readline()
    response.close()
    await asyncio.wait_for(it.store.cancelled.wait(), 5)


async def test_a_wish_that_cannot_be_is_refused_at_once(it: World) -> None:
    async with it.local.post("/helios/v1/models", json={"source": "ftp", "location": "x"}) as response:
        assert (response.status, (await response.json())["error"]["param"]) == (400, "source")
    assert it.store.wanted == []


async def test_an_adapter_is_listed_with_its_base(it: World) -> None:
    import anthropic
    import openai

    it.store.held.append(stored("org/poet", "poet", adapter=Adapter(ModelRef("tiny"), 8)))
    async with openai.AsyncOpenAI(base_url=f"{it.url}/v1", api_key="none") as client:
        listed = {model.id: model.model_dump() async for model in client.models.list()}
        one = (await client.models.retrieve("poet")).model_dump()
    assert {name: model["parent"] for name, model in listed.items()} == {
        "tiny": None,
        "org/other": None,
        "org/poet": "tiny",
        "far": None,
    }
    assert (one["root"], one["parent"], one["max_model_len"]) == ("tiny", "tiny", 8192)
    async with anthropic.AsyncAnthropic(base_url=it.url, api_key="none") as client:
        assert (await client.models.retrieve("org/poet")).display_name == "org/poet"
    async with it.local.get("/helios/v1/models/poet") as response:
        shown = ModelDetail.model_validate(await response.json())
    assert (shown.base, shown.adapter_rank, shown.state) == ("tiny", 8, "ready")
    async with it.local.delete("/helios/v1/models/poet") as response:
        assert response.status == 200, "its base is in use, it is not"


async def test_the_base_of_an_adapter_may_be_said(it: World) -> None:
    it.store.outcome = stored("x", adapter=Adapter(ModelRef("tiny"), 8))
    async with it.local.post("/helios/v1/models", json=WANTED | {"ref": "x", "base": "tiny"}) as response:
        [(_, body)] = events(await response.text())
    assert (body["base"], body["adapter_rank"]) == ("tiny", 8)
    [wanted] = it.store.wanted
    assert wanted.base == ModelRef("tiny")
    async with it.local.post("/helios/v1/models", json=WANTED | {"base": "a b"}) as response:
        assert response.status == 400


async def test_an_adapter_is_estimated_on_any_device_with_room_beside_its_base(it: World) -> None:
    known = known_from(CONFIG, ())
    it.store.held += [
        stored("org/m"),
        stored("org/poet", adapter=Adapter(ModelRef("org/m"), 100)),
    ]
    it.store.knowledge["org/m"] = known
    views = []
    for model in ("org/m", "org/poet"):
        async with it.local.post("/helios/v1/estimate", json={"model": model, "gpu": "H100"}) as response:
            views.append(EstimateView.model_validate(await response.json()))
    base, poet = views
    assert poet.model == "org/poet"
    assert known.model is not None and known.model.layout is not None
    [room] = adapter_room(known.model.layout, Launch(max_loras=4, max_lora_rank=128), "bfloat16")
    assert abs(poet.per_device.weights_bytes - base.per_device.weights_bytes - room) < 4 * MiB
