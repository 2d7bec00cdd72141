"""What must hold of any model: more of anything never takes less, ranks add up, intervals hold the likely value."""

from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from heliosd.core.units import GiB
from heliosd.estimation.account import account, widest
from heliosd.estimation.cache import cache_of
from heliosd.estimation.launch import Launch
from heliosd.estimation.model import read_model
from heliosd.estimation.resolve import resolve
from heliosd.estimation.weights import stages, weight_shares
from tests.effort import examples
from tests.estimation.logged_models import DEEPSEEK_LITE, GEMMA_27B, LLAMA_8B, MIXTRAL, QWEN_06B, QWEN_7B, Config

QUICK = settings(max_examples=examples(40), deadline=None)
ROUNDING = 0.02
"""The allocator's roundings are not monotonic: a matrix a little larger may leave no rest behind."""
VERSIONS = st.sampled_from([(0, 9, 2), (0, 11, 0), (0, 14, 0), (0, 19, 0), (0, 25, 1), (0, 32, 0)])


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Small models of four families, dense and of experts, grouped and latent."""
    heads = draw(st.sampled_from([4, 8, 16]))
    config: Config = {
        "model_type": draw(st.sampled_from(["llama", "qwen2", "qwen3", "mistral"])),
        "architectures": ["SomeForCausalLM"],
        "num_hidden_layers": draw(st.integers(1, 40)),
        "hidden_size": heads * draw(st.sampled_from([64, 128])),
        "intermediate_size": 64 * draw(st.integers(4, 200)),
        "num_attention_heads": heads,
        "num_key_value_heads": draw(st.sampled_from([1, 2, 4])),
        "vocab_size": draw(st.integers(1000, 200_000)),
        "max_position_embeddings": draw(st.sampled_from([2048, 32768])),
        "tie_word_embeddings": draw(st.booleans()),
    }
    if draw(st.booleans()):
        config |= {
            "model_type": "qwen3_moe", "num_experts": draw(st.sampled_from([8, 64])), "num_experts_per_tok": 2,
            "moe_intermediate_size": 64 * draw(st.integers(2, 12)), "decoder_sparse_step": 1, "mlp_only_layers": [],
        }  # fmt: skip
    return config


@st.composite
def launches(draw: st.DrawFn) -> Launch:
    return Launch(
        version=draw(VERSIONS),
        tensor_parallel=draw(st.sampled_from([1, 2, 4])),
        device_name="NVIDIA H100 80GB HBM3",
        max_num_seqs=draw(st.sampled_from([1, 64, 1024])),
        max_num_batched_tokens=draw(st.sampled_from([2048, 8192])),
        max_model_len=2048,
        enforce_eager=draw(st.booleans()),
    )


def fixed(config: Config, launch: Launch) -> int:
    return widest(account(read_model(config), launch)).fixed_bytes


def never_less(more: int, less: int) -> None:
    assert more >= less * (1 - ROUNDING) - 32 * 2**20


@QUICK
@given(configs(), launches(), st.sampled_from(["num_hidden_layers", "vocab_size", "intermediate_size"]))
def test_more_of_the_model_never_takes_less(config: Config, launch: Launch, name: str) -> None:
    never_less(fixed({**config, name: config[name] * 2}, launch), fixed(config, launch))


@QUICK
@given(configs(), launches())
def test_wider_never_takes_less(config: Config, launch: Launch) -> None:
    heads = 2 * config["num_attention_heads"]
    wider = {**config, "hidden_size": 2 * config["hidden_size"], "num_attention_heads": heads}
    never_less(fixed(wider, launch), fixed(config, launch))


@QUICK
@given(configs(), launches(), st.sampled_from(["max_num_seqs", "max_num_batched_tokens"]))
def test_larger_batches_never_take_less(config: Config, launch: Launch, name: str) -> None:
    model = read_model(config)
    few, many = (account(model, each)[0] for each in (launch, replace(launch, **{name: 2 * getattr(launch, name)})))
    assert many.activation.likely_bytes >= few.activation.likely_bytes
    assert many.graphs.likely_bytes >= few.graphs.likely_bytes


@QUICK
@given(configs(), launches())
def test_higher_precision_never_takes_less(config: Config, launch: Launch) -> None:
    """Of weights and KV cache. Activations may take less in float32: half precision keeps its logits beside a copy."""
    kinds = (("bfloat16", "bitsandbytes"), ("bfloat16", "fp8"), ("bfloat16", None), ("float32", None))
    taken = [
        account(read_model(config, asked), replace(launch, dtype=dtype))[0].weights.likely_bytes
        for dtype, asked in kinds
    ]
    for less, more in pairwise(taken):
        never_less(more, less)
    model = read_model(config)
    blocks = []
    for dtype, cached in (("bfloat16", "fp8"), ("bfloat16", "auto"), ("float32", "auto")):
        asked_for = replace(launch, dtype=dtype, kv_cache_dtype=cached)
        blocks.append(cache_of(model, asked_for, resolve(model, asked_for)).block_bytes)
    assert blocks[0] * 2 == blocks[1]
    assert blocks[1] * 2 == blocks[2]


@QUICK
@given(configs(), launches(), st.integers(1, 100_000), st.integers(1, 8))
def test_more_tokens_and_requests_never_need_less(config: Config, launch: Launch, tokens: int, requests: int) -> None:
    model = read_model(config)
    pages = cache_of(model, launch, resolve(model, launch))
    assert pages.bytes_for(tokens) <= pages.bytes_for(2 * tokens)
    assert pages.tokens_in(pages.bytes_for(tokens)) >= tokens
    assert pages.bytes_for_requests(requests, 1024) <= pages.bytes_for_requests(requests + 1, 1024)
    assert pages.bytes_for_requests(requests, 1024) <= pages.bytes_for_requests(requests, 2048)
    assert pages.max_concurrency(2048, GiB) <= pages.max_concurrency(1024, GiB)


@QUICK
@given(configs(), st.sampled_from([2, 4, 8]))
def test_ranks_add_up_to_the_model(config: Config, ranks: int) -> None:
    """All ranks together hold at least the parameters; beyond them only what is repeated and padded."""
    model = read_model(config)
    layout = model.layout
    assert layout is not None
    share = weight_shares(layout, model.quantization, Launch(tensor_parallel=ranks), "bfloat16")[0]
    together = (share.total_bytes - share.rounding_bytes) * ranks
    assert together >= 2 * layout.parameters
    repeated = sum(
        tensor.elements * len(block.layers)
        for block in layout.blocks
        for tensor in block.tensors
        if "k_proj" in tensor.name or "v_proj" in tensor.name or "norm" in tensor.name or ".gate." in tensor.name
    )
    padding = 64 * ranks * config["hidden_size"] * 2 + 64 * ranks * config["num_hidden_layers"]
    assert together <= 2 * (layout.parameters + ranks * (repeated + config["hidden_size"]) + padding)


@QUICK
@given(configs(), st.integers(1, 8))
def test_stages_hold_every_layer_once(config: Config, count: int) -> None:
    layers = config["num_hidden_layers"]
    found = stages(layers, count)
    assert len(found) == count
    assert [index for each in found for index in each] == list(range(layers))
    model = read_model(config)
    assert model.layout is not None
    shares = weight_shares(model.layout, model.quantization, Launch(pipeline_parallel=count), "bfloat16")
    whole = weight_shares(model.layout, model.quantization, Launch(), "bfloat16")[0]
    assert sum(each.layers_bytes + each.experts_bytes for each in shares) == whole.layers_bytes + whole.experts_bytes


@QUICK
@given(configs() | st.sampled_from([LLAMA_8B, QWEN_7B, QWEN_06B, GEMMA_27B, MIXTRAL, DEEPSEEK_LITE]), launches())
def test_intervals_hold_the_likely_value(config: Config, launch: Launch) -> None:
    for each in account(read_model(config), launch, kv_bytes=GiB):
        for name, term in each.terms:
            assert 0 <= term.low_bytes <= term.likely_bytes <= term.high_bytes, name
            assert term.why, name
        assert each.booked_bytes >= each.total_bytes == each.fixed_bytes + GiB
        assert each.margin_bytes >= 0
