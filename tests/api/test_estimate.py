"""Estimates over HTTP: of anything, of many, and of nonsense."""

import asyncio
from typing import Any

import pytest

from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.names import DeviceId
from heliosd.core.units import GiB
from heliosd.estimation.account import account
from heliosd.estimation.accuracy import Accuracy
from heliosd.estimation.known import known_from
from heliosd.estimation.launch import Launch
from heliosd.estimation.model import read_model
from heliosd.lease import Judgement
from heliosd.wire import AccuracyView, BatchAnswer, BatchEntry, EstimateView, TrainRequest
from tests.api.world import FOOTPRINT, World, stored

PATH = "/helios/v1/estimate"
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}
PARAMETERS = 8_030_261_248
KV_TOKEN_BYTES = 2 * 32 * 8 * 128 * 2


async def ask(it: World, status: int = 200, **fields: Any) -> Any:
    async with it.local.post(PATH, json=fields) as response:
        body = await response.json()
        assert response.status == status, body
        return body if status == 200 else body["error"]


async def view(it: World, **fields: Any) -> EstimateView:
    return EstimateView.model_validate(await ask(it, config=CONFIG | fields.pop("change", {}), **fields))


async def test_a_config_is_answered_without_the_store(it: World) -> None:
    found = await view(it, gpu="A100-80", context=4096, concurrency=8)
    assert (found.parameters, found.architecture, found.verdict) == (PARAMETERS, "LlamaForCausalLM", "fits")
    assert found.kv_bytes_per_token == KV_TOKEN_BYTES
    [account] = found.accounts
    names = ["weights", "kv_cache", "activation", "graphs", "non_torch", "context"]
    assert [term.name for term in account.terms] == names
    assert account.total_bytes == sum(term.likely_bytes for term in account.terms)
    assert all(term.low_bytes <= term.likely_bytes <= term.high_bytes and term.why for term in account.terms)
    weights = account.terms[0].likely_bytes
    assert abs(weights - 2 * PARAMETERS) < 0.01 * weights
    assert found.kv_tokens == pytest.approx(account.terms[1].likely_bytes / KV_TOKEN_BYTES, rel=0.01)
    assert found.concurrency == pytest.approx(found.kv_tokens / 4096, rel=0.01)
    assert (found.device, found.max_num_seqs, found.max_model_len) == ("A100-80", 8, 4096)
    assert found.per_device.total_bytes == account.booked_bytes <= (account.device_bytes or 0)


async def test_each_stage_has_its_account_and_ranks_share_one(it: World) -> None:
    found = await view(it, gpu="H100", tensor_parallel=2, pipeline_parallel=2, data_parallel=2)
    assert (found.device_count, [each.stage for each in found.accounts]) == (8, [0, 1])
    assert [each.devices for each in found.accounts] == [4, 4]
    weights = [each.terms[0].likely_bytes for each in found.accounts]
    assert sum(weights) == pytest.approx(PARAMETERS, rel=0.01)  # two bytes each, over two ranks


async def test_what_is_asked_changes_the_answer_as_it_should(it: World) -> None:
    plain = await view(it, gpu="H100")
    fp8 = await view(it, gpu="H100", precision="fp8")
    online = await view(it, gpu="H100", quantize="fp8")
    cache = await view(it, gpu="H100", kv_cache_dtype="fp8")
    eager = await view(it, gpu="H100", enforce_eager=True)
    assert fp8.per_device.weights_bytes < 0.6 * plain.per_device.weights_bytes
    assert online.per_device.weights_bytes < 0.6 * plain.per_device.weights_bytes
    assert cache.kv_bytes_per_token * 2 == plain.kv_bytes_per_token
    assert eager.accounts[0].terms[3].likely_bytes == 0 < plain.accounts[0].terms[3].likely_bytes
    old = await view(it, gpu="H100", engine_version="0.9.1")
    assert old.engine_version == "0.9.1"
    given = await view(it, gpu="H100", kv_cache_bytes=2 * GiB)
    assert given.per_device.kv_cache_bytes == 2 * GiB


async def test_without_a_gpu_it_is_for_what_this_node_has(it: World) -> None:
    found = await view(it)
    assert (found.device, found.accounts[0].device_bytes) == ("this node's H100", 80 * GiB)
    it.node.devices = (Device(DeviceId("cpu"), DeviceKind.HOST, "RAM", 64 * GiB),)
    assert (await view(it)).accounts[0].terms[3].why.startswith("eager")
    it.node.devices = ()
    found = await view(it)
    assert found.device == "H100"
    assert any("this node has none" in note for note in found.notes)


async def test_a_device_may_be_so_many_bytes(it: World) -> None:
    assert (await view(it, device_bytes=24 * GiB, context=2048)).accounts[0].device_bytes == 24 * GiB
    slice_of = await view(it, gpu="MIG 1g.10gb")
    assert (slice_of.verdict, slice_of.accounts[0].device_bytes) == ("never_fits", round(9.5 * GiB))


async def test_what_does_not_fit_says_by_how_much_and_what_would_help(it: World) -> None:
    found = await view(it, gpu="T4", context=8192)
    assert found.verdict == "never_fits"
    assert "too much" in found.reason
    assert "more devices" in [change.kind for change in found.changes]
    assert (await view(it, gpu="T4", context=8192, changes=False)).changes == []
    assert (await view(it, gpu="H100")).changes == []


async def test_the_catalogue_is_recommended_from_when_asked(it: World) -> None:
    found = await view(it, gpu="H100", context=4096, concurrency=4, recommend=True, gpus=["L40S", "H100", "T4"])
    assert found.recommendation is not None
    options = found.recommendation.options
    assert {option.gpu for option in options} <= {"L40S", "H100", "T4"}
    assert [option.usd_per_hour for option in options] == sorted(option.usd_per_hour for option in options)


async def test_prices_of_ones_own_rank_the_recommendation(it: World) -> None:
    wish = {"context": 4096, "recommend": True, "gpus": ["L40S", "H100"]}
    dear = (await view(it, gpu="H100", prices={"l40s": 99, "h100": 0.5}, **wish)).recommendation
    assert dear is not None
    assert (dear.options[0].gpu, dear.options[0].usd_per_hour) == ("H100", 0.5)
    assert "assumed" not in dear.options[0].sentence
    usual = (await view(it, gpu="H100", **wish)).recommendation
    assert usual is not None
    assert (usual.options[0].gpu, "assumed" in usual.options[0].sentence) == ("L40S", True)
    for wrong in (-1, "inf", 1e300):
        error = await ask(it, 400, config=CONFIG, gpu="H100", prices={"h100": wrong})
        assert (error["code"], error["param"]) == ("bad_price", "prices"), "though nobody asked for a recommendation"
    small = await view(it, gpu="T4", context=8192, prices={"t4": 0.125})
    assert {each.usd_per_hour for each in small.changes if each.kind == "more devices"} <= {0.25, 0.5, 1.0}
    assert (await ask(it, 400, config=CONFIG, prices={"abacus": 1}, **wish))["code"] == "unknown_gpu"


async def test_the_largest_batch_and_context_that_fit(it: World) -> None:
    """Each limit's largest value fits, and one more of it does not."""
    wish = {"gpu": "L4", "context": 4096, "concurrency": 8}
    sizing = (await view(it, size=True, **wish)).sizing
    assert sizing is not None
    assert sizing.max_num_seqs and sizing.max_num_batched_tokens and sizing.max_model_len
    for name, most in sizing.model_dump().items():
        changed = {**wish, **({"concurrency": most} if name == "max_num_seqs" else {})}
        changed |= {"context": most} if name == "max_model_len" else {name: most}
        assert (await view(it, **changed)).verdict == "fits", name
    more = {**wish, "concurrency": sizing.max_num_seqs + 1}
    assert (await view(it, **more, max_num_seqs=sizing.max_num_seqs + 1)).verdict == "never_fits"
    none = (await view(it, size=True, **{**wish, "gpu": "T4", "device_bytes": GiB})).sizing
    assert none is not None
    assert set(none.model_dump().values()) == {None}
    assert (await view(it, **wish)).sizing is None


async def test_draft_layers_take_weights_and_cache(it: World) -> None:
    change = {"num_nextn_predict_layers": 1, "model_type": "glm4_moe", "architectures": ["Glm4MoeForCausalLM"],
              "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 1024, "n_shared_experts": 1,
              "first_k_dense_replace": 1}  # fmt: skip
    error = await ask(it, 400, config=CONFIG, gpu="H100", speculative_tokens=2)
    assert (error["code"], error["param"]) == ("bad_limits", "speculative_tokens")
    plain, drafting = [await view(it, change=change, gpu="H200", speculative_tokens=each) for each in (0, 3)]
    assert drafting.per_device.weights_bytes > plain.per_device.weights_bytes
    assert drafting.kv_bytes_per_token > plain.kv_bytes_per_token


async def test_what_dividing_repeats_is_told(it: World) -> None:
    assert any("ranks together hold" in note for note in (await view(it, gpu="H100", tensor_parallel=2)).notes)
    assert not any("ranks together hold" in note for note in (await view(it, gpu="H100")).notes)


async def test_load_tells_when_the_cache_overflows(it: World) -> None:
    load = {"rate": 1, "prompt_tokens": 500, "output_tokens": 250, "tokens_per_second": 25}
    small = (await view(it, gpu="H100", load=load)).overflow
    large = (await view(it, gpu="H100", load=load | {"rate": 1000}, max_num_seqs=100_000)).overflow
    assert small is not None
    assert large is not None
    assert small.sequences == pytest.approx(10.0)  # Little: one a second, ten seconds each
    assert small.full_share < 0.01 < large.full_share
    assert large.seconds_until_full is not None
    halved = (await view(it, gpu="H100", load=load, data_parallel=2)).overflow
    assert halved is not None
    assert halved.fitting_rate == pytest.approx(2 * small.fitting_rate, rel=0.02)


@pytest.mark.parametrize(("method", "fits"), [("full", False), ("lora", True), ("qlora", True)])
async def test_training_has_its_own_account(it: World, method: str, fits: bool) -> None:
    found = await view(it, gpu="A100-80", train={"method": method, "gradient_checkpointing": True})
    assert found.training is not None
    assert (found.verdict == "fits") is fits, found.reason
    [account] = found.accounts
    assert account.total_bytes == sum(term.likely_bytes for term in account.terms) == found.training.total_bytes
    assert found.training.total_bytes == max(found.training.moments.values())


async def test_words_of_the_wire_are_those_of_the_plan() -> None:
    from heliosd.estimation import training_plan

    for field, kind in (
        ("method", training_plan.Method),
        ("optimizer", training_plan.Optimizer),
        ("precision", training_plan.Precision),
        ("attention", training_plan.Attention),
        ("sharding", training_plan.Sharding),
        ("offload", training_plan.Offload),
    ):
        assert TrainRequest.model_json_schema()["properties"][field]["enum"] == [each.value for each in kind]


async def test_an_equal_question_is_answered_from_memory(it: World) -> None:
    async def state(**fields: Any) -> tuple[str, bytes]:
        async with it.local.post(PATH, json={"config": CONFIG, **fields}) as response:
            return response.headers["X-Helios-Cache"], await response.read()

    first, answer = await state(gpu="H100")
    again, kept = await state(gpu="H100")
    other, _ = await state(gpu="H200")
    assert (first, again, other) == ("miss", "hit", "miss")
    assert kept == answer


async def test_another_device_here_is_another_answer(it: World) -> None:
    large = await view(it)
    it.node.devices = (Device(DeviceId("g0"), DeviceKind.CUDA, "NVIDIA L4", 23 * GiB),)
    assert (await view(it)).accounts[0].device_bytes != large.accounts[0].device_bytes


async def test_a_stored_model_is_asked_about_elsewhere(it: World) -> None:
    it.store.held.append(stored("org/known"))
    it.store.knowledge["org/known"] = known_from(CONFIG, ())
    found = EstimateView.model_validate(await ask(it, model="org/known", gpu="H200", tensor_parallel=2))
    assert (found.model, found.device, found.device_count) == ("org/known", "H200", 2)
    error = await ask(it, 400, model="tiny", gpu="H200")
    assert error["code"] == "bad_config"
    assert (await ask(it, 404, model="nobody/has", gpu="H200"))["code"] == "model_not_found"


async def test_a_model_here_keeps_its_fields_and_gains_the_account(it: World) -> None:
    model, launch = read_model(CONFIG), Launch(device_name="NVIDIA L4", device_bytes=23 * GiB, max_num_seqs=256)
    [told] = account(model, launch, kv_bytes=GiB)
    it.node.judgement = Judgement(
        "tiny", FOOTPRINT, 1, 8192, 46_000, 23_040, "fits", "31 GiB are free", (), (told,), launch, model
    )
    found = EstimateView.model_validate(await ask(it, model="tiny"))
    assert (found.verdict, found.kv_tokens, found.parameters) == ("fits", 46_000, PARAMETERS)
    assert found.accounts[0].terms[1].likely_bytes == GiB
    assert (found.device, found.engine_version) == ("NVIDIA L4", "0.32.0")


async def test_a_repository_of_the_hub_is_looked_at(it: World) -> None:
    assert (await ask(it, 404, hub="org/none"))["code"] == "repository_not_found"
    it.hub.held["org/name"] = known_from(CONFIG, ())
    found = EstimateView.model_validate(await ask(it, hub="org/name", revision="v1", gpu="H100"))
    assert (found.model, found.parameters, it.hub.asked[-1]) == ("org/name", PARAMETERS, ("org/name", "v1"))


async def test_accuracy_by_term(it: World) -> None:
    async with it.local.get(f"{PATH}/accuracy") as response:
        assert AccuracyView.model_validate(await response.json()).terms == []
    it.starts["weights"] = Accuracy(7, 0.001, 0.01, 0.02, 0.0)
    async with it.local.get(f"{PATH}/accuracy") as response:
        [term] = AccuracyView.model_validate(await response.json()).terms
    assert (term.name, term.starts, term.p90) == ("weights", 7, 0.01)


# ---- nonsense --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers"),
        ({"num_hidden_layers": "many"}, "num_hidden_layers"),
        ({"hidden_size": -4096}, "hidden_size"),
        ({"num_attention_heads": 31}, "num_key_value_heads"),
        ({"hidden_size": 10**11, "intermediate_size": 10**11}, "config"),
    ],
)
async def test_a_config_that_makes_no_sense_is_refused_at_once(it: World, change: dict[str, Any], param: str) -> None:
    error = await ask(it, 400, config=CONFIG | change)
    assert (error["code"], error["param"]) == ("bad_config", param)
    assert error["message"].startswith("cannot ")


@pytest.mark.parametrize("config", [{}, {"a": 1}, [CONFIG], "config.json", 7, {"version": "1.0", "added_tokens": []}])
async def test_what_is_no_config_is_said_to_be_none(it: World, config: Any) -> None:
    error = await ask(it, 400, config=config)
    assert error["code"] == "bad_config"
    assert error["message"].startswith("cannot read the configuration")


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"tensor_parallel": 3}, "bad_limits", "tensor_parallel"),
        ({"pipeline_parallel": 64}, "bad_limits", "pipeline_parallel"),
        ({"expert_parallel": True}, "bad_limits", "expert_parallel"),
        ({"context": 4096, "max_model_len": 8192}, "bad_limits", "context"),
        ({"context": -1}, "bad_request", "context"),
        ({"context": 10**15}, "bad_request", "context"),
        ({"device_bytes": 0}, "bad_request", "device_bytes"),
        ({"gpu": "abacus"}, "unknown_gpu", "gpu"),
        ({"gpu": "V100", "precision": "fp8"}, "bad_precision", "precision"),
        ({"gpu": "A100", "kv_cache_dtype": "fp8"}, "bad_precision", "kv_cache_dtype"),
        ({"engine_version": "newest"}, "bad_request", "engine_version"),
        ({"train": {"rank": 0}}, "bad_training_plan", "rank"),
        ({"train": {"method": "hope"}}, "bad_request", "train.method"),
        ({"train": {}, "precision": "fp8"}, "bad_training_plan", "precision"),
        ({"model": "tiny"}, "bad_request", "config"),
        ({"recommend": True, "context": 10**6}, "bad_wish", "context"),
    ],
)
async def test_limits_that_make_no_sense_name_the_field(
    it: World, fields: dict[str, Any], code: str, param: str
) -> None:
    error = await ask(it, 400, config=CONFIG, **fields)
    assert (error["code"], error["param"]) == (code, param)
    assert error["message"].startswith("cannot ")


async def test_nesting_without_end_is_refused(it: World) -> None:
    for deep in (500, 15_000):
        body = b'{"config":' + b'{"a":' * deep + b"1" + b"}" * deep + b"}"
        async with it.local.post(PATH, data=body) as response:
            answer = response.status, (await response.json())["error"]["code"]
        assert answer == (400, "malformed_json")


async def test_headers_make_the_weights_exact_or_are_refused(it: World) -> None:
    header = '{"model.layers.0.a.weight":{"dtype":"BF16","shape":[4096],"data_offsets":[0,8192]}}'
    whole = {"size_bytes": 8 + len(header) + 8192, "header": header}
    found = await view(it, gpu="H100", headers=[whole])
    assert "from the headers of 1 files" in found.accounts[0].terms[0].why
    error = await ask(it, 400, config=CONFIG, gpu="H100", headers=[whole, whole | {"size_bytes": 100}])
    assert (error["code"], error["param"]) == ("bad_config", "headers")
    assert error["message"].startswith("cannot read header 1 of the weights")


async def test_two_gigabytes_are_refused_before_a_byte_is_read(it: World) -> None:
    for path in (PATH, f"{PATH}/batch"):
        reader, writer = await asyncio.open_unix_connection(it.listening.socket_path)
        writer.write(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {2 * 1024**3}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 413")
        assert b"body_too_large" in await reader.read(500)
        writer.close()


async def test_a_body_that_does_not_say_how_long_it_is_ends_at_the_limit(it: World) -> None:
    async def endless() -> Any:
        for _ in range(200):
            yield b" " * 65536

    async with it.local.post(PATH, data=endless()) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (413, "body_too_large")


# ---- many ------------------------------------------------------------------------------------------------------------


async def batch(it: World, entries: list[Any]) -> list[BatchEntry]:
    async with it.local.post(f"{PATH}/batch", json={"entries": entries}) as response:
        assert response.status == 200, await response.text()
        return BatchAnswer.model_validate(await response.json()).estimates


async def test_a_batch_answers_in_order_and_errors_are_values(it: World) -> None:
    entries: list[Any] = [
        {"config": CONFIG, "gpu": "H100"},
        {"config": CONFIG | {"num_hidden_layers": 0}},
        {"model": "tiny"},
        {"model": "nobody/has"},
        7,
        {"config": CONFIG, "gpu": "H200"},
        {"config": CONFIG, "gpu": "H100"},
        {"confog": {}},
        {"config": CONFIG | {"time_step_limit": [0.0, float("inf")]}, "gpu": "H100"},
    ]
    found = await batch(it, entries)
    assert [entry.index for entry in found] == list(range(9))
    assert [entry.estimate and entry.estimate.device for entry in found] == [
        "H100", None, None, None, None, "H200", "H100", None, "H100",
    ]  # fmt: skip
    assert found[2].estimate is not None
    assert found[2].estimate.model == "tiny"
    codes = [entry.error.code if entry.error else None for entry in found]
    assert codes == [None, "bad_config", None, "model_not_found", "bad_request", None, None, "bad_request", None]
    assert [entry.cached for entry in found] == [False] * 6 + [True, False, False]


async def test_a_batch_comes_line_by_line_to_who_wants_lines(it: World) -> None:
    entries = [{"config": CONFIG | {"vocab_size": 32000 + n}, "gpu": "H100"} for n in range(40)]
    headers = {"Accept": "application/x-ndjson"}
    async with it.local.post(f"{PATH}/batch", json={"entries": entries}, headers=headers) as response:
        assert response.content_type == "application/x-ndjson"
        first = BatchEntry.model_validate_json(await response.content.readline())
        rest = [BatchEntry.model_validate_json(line) async for line in response.content]
    assert first.index == 0
    assert [entry.index for entry in rest] == list(range(1, 40))
    assert all(entry.estimate is not None for entry in rest)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"entries": 7}', b'{"entries": [1 2]}', b'{"entries": [1,]}', b'{"entries": [1]} x',
     b'{"entries": [' + b"[" * 9000 + b"]" * 9000 + b"]}", b'{"entries": [\xff]}'],
)  # fmt: skip
async def test_what_is_no_batch_is_refused_whole(it: World, body: bytes) -> None:
    async with it.local.post(f"{PATH}/batch", data=body) as response:
        error = (await response.json())["error"]
    assert (response.status, error["code"]) == (400, "malformed_json")
    assert error["message"].startswith("cannot read the batch")


async def test_an_empty_batch_has_an_empty_answer_and_a_long_one_is_refused(it: World) -> None:
    assert await batch(it, []) == []
    async with it.local.post(f"{PATH}/batch", data=b'{"entries":[' + b"1," * 10_000 + b"1]}") as response:
        assert (response.status, (await response.json())["error"]["code"]) == (400, "bad_limits")


async def test_the_event_loop_goes_on_while_a_batch_is_calculated(it: World) -> None:
    entries = [{"config": CONFIG | {"vocab_size": 50_000 + n}, "gpu": "H100"} for n in range(100)]
    turns = 0

    async def watch() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch())
        found = await batch(it, entries)
        watching.cancel()
    assert len(found) == 100
    assert turns >= 10, "it ran all along, not only before and after"
