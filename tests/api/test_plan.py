"""/helios/v1/plan: models on devices, worth most together, and every byte of it accounted for."""

from typing import Any

import pytest

from heliosd.core.units import GiB
from heliosd.wire import PlanView
from tests.api.test_estimate import CONFIG
from tests.api.world import World

PATH = "/helios/v1/plan"
SMALL = CONFIG | {"num_hidden_layers": 16}


async def ask(it: World, status: int = 200, **fields: Any) -> Any:
    async with it.local.post(PATH, json=fields) as response:
        body = await response.json()
        assert response.status == status, body
        return body if status == 200 else body["error"]


async def planned(it: World, models: list[dict[str, Any]], **fields: Any) -> PlanView:
    return PlanView.model_validate(await ask(it, models=models, **fields))


def model(name: str, config: dict[str, Any] = CONFIG, **fields: Any) -> dict[str, Any]:
    return {"config": config, "name": name, "context": 4096, "concurrency": 4, **fields}


async def test_models_share_a_device_and_the_rest_becomes_kv_cache(it: World) -> None:
    found = await planned(it, [model("a"), model("b"), model("c", SMALL)], gpus=["H100"])
    assert {each.model: each.devices for each in found.placed} == {name: ["gpu0"] for name in "abc"}
    [device] = found.devices
    assert device.committed_bytes == sum(each.committed_bytes for each in found.placed)
    assert device.room_bytes - 3 < device.committed_bytes <= device.room_bytes < device.capacity_bytes
    assert found.committed_ratio > 0.95
    assert all(each.committed_bytes >= each.needed_bytes and each.concurrency >= 4 for each in found.placed)


async def test_what_is_worth_more_is_placed_and_the_other_is_told_what_is_missing(it: World) -> None:
    found = await planned(it, [model("a", worth=1), model("b", worth=2)], gpus=["RTX-4090"])
    assert [each.model for each in found.placed] == ["b"]
    [left] = found.left
    assert left.model == "a"
    assert "are left beside what is worth more" in left.reason


async def test_a_model_is_divided_over_as_few_devices_as_hold_it(it: World) -> None:
    large = CONFIG | {"num_hidden_layers": 160}
    found = await planned(it, [model("large", large), model("small", SMALL)], gpus=["H100", "L40S", "H100"])
    where = {each.model: each.devices for each in found.placed}
    assert where["large"] == ["gpu0", "gpu2"], "equal ones"
    alone = await planned(it, [model("large", large)], gpus=["H100"])
    assert "too much" in alone.left[0].reason
    asked = await planned(it, [model("small", SMALL, tensor_parallel=2)], gpus=["H100", "L40S"])
    assert asked.left[0].reason == "needs 2 equal devices"


async def test_heads_that_do_not_divide_are_no_reason_to_leave_a_model_out(it: World) -> None:
    odd = CONFIG | {
        "num_hidden_layers": 320,
        "num_attention_heads": 27,
        "num_key_value_heads": 9,
        "hidden_size": 27 * 128,
    }
    found = await planned(it, [model("odd", odd, context=1024)], gpus=["H100"] * 4)
    (placed,) = found.placed
    assert len(placed.devices) == placed.pipeline_parallel == 2
    asked = await planned(it, [model("a", SMALL, tensor_parallel=2, pipeline_parallel=2)], gpus=["H100"] * 4)
    assert (len(asked.placed[0].devices), asked.placed[0].pipeline_parallel) == (4, 2)


async def test_replicas_have_numbers_and_names_stay_apart(it: World) -> None:
    found = await planned(it, [model("a", SMALL, replicas=2), model("a #1", SMALL)], gpus=["H100", "H100"])
    assert sorted(each.model for each in found.placed) == ["a #1", "a #1 (2)", "a #2"]


async def test_without_gpus_it_is_about_this_node(it: World) -> None:
    found = await planned(it, [model("a")])
    [device] = found.devices
    assert (device.gpu, device.capacity_bytes) == ("this node's H100", 80 * GiB)
    assert found.placed[0].devices == [device.name]
    it.node.devices = ()
    assert (await ask(it, 400, models=[model("a")]))["param"] == "gpus"


async def test_hundreds_are_planned_in_one_call_and_thousands_refused(it: World) -> None:
    many = [model(f"m{at}", SMALL, worth=1 + at % 7) for at in range(150)]
    found = await planned(it, many, gpus=["H100"] * 8)
    assert len(found.placed) + len(found.left) == 150
    assert found.committed_ratio > 0.95
    error = await ask(it, 400, models=[model("a", SMALL, replicas=64)] * 16, gpus=["H100"])
    assert (error["code"], error["param"]) == ("bad_limits", "models")


async def test_models_of_the_store_are_planned_too(it: World) -> None:
    assert (await ask(it, 404, models=[{"model": "no/such"}]))["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"models": []}, "bad_request", "models"),
        ({"models": [{"context": 10}]}, "missing_model", "models.0"),
        ({"models": [model("a") | {"hub": "a/b"}]}, "missing_model", "models.0"),
        ({"models": [model("a"), model("b", tensor_parallel=3)], "gpus": ["H100"] * 3}, "bad_limits",
         "models.1.tensor_parallel"),
        ({"models": [model("a", precision="fp8")], "gpus": ["V100"]}, "bad_precision", "models.0.precision"),
        ({"models": [model("a", worth=0)]}, "bad_request", "models.0.worth"),
        ({"models": [model("a")], "gpus": ["abacus"]}, "unknown_gpu", "gpu"),
        ({"models": [model("a", CONFIG | {"num_hidden_layers": 0})], "gpus": ["H100"]}, "bad_config",
         "num_hidden_layers"),
    ],
)  # fmt: skip
async def test_what_makes_no_sense_is_named(it: World, fields: dict[str, Any], code: str, param: str) -> None:
    error = await ask(it, 400, **fields)
    assert (error["code"], error["param"]) == (code, param)
    assert error["message"].startswith("cannot ")
