"""Weights from the headers of the files: what a rank loads of what is really there."""

from collections.abc import Iterable

import pytest

from heliosd.core.units import GiB
from heliosd.estimation.account import account
from heliosd.estimation.headers import BITS, Header, Tensor
from heliosd.estimation.launch import Launch, Version
from heliosd.estimation.layout import Split
from heliosd.estimation.model import Model, read_model
from heliosd.estimation.stored_tensors import StoredWeights, split_of, stored_weights
from tests.estimation.logged_models import LLAMA_8B, MIXTRAL, Config


def header(tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> Header:
    made, begin = [], 0
    for name, dtype, shape in tensors:
        size = BITS[dtype] // 8
        for side in shape:
            size *= side
        made.append(Tensor(name, dtype, shape, begin, begin + size))
        begin += size
    return Header(tuple(made), {})


def published(config: Config) -> tuple[Model, StoredWeights]:
    """The files that a plain checkpoint of this configuration has, one for each layer."""
    model = read_model(config)
    layout = model.layout
    assert layout is not None
    headers = [header((each.name, "BF16", (each.rows, each.columns)) for each in (*layout.first, *layout.last))]
    for block in layout.blocks:
        for layer in block.layers:
            names = [
                (each.name.replace("{}", str(layer)).replace("experts.0.", f"experts.{at}."), each)
                for each in block.tensors
                for at in range(each.copies)
            ]
            headers.append(header((name, "BF16", (each.rows, each.columns)) for name, each in names))
    return model, stored_weights(headers)


@pytest.mark.parametrize("config", [LLAMA_8B, MIXTRAL])
@pytest.mark.parametrize(
    "launch",
    [Launch(), Launch(tensor_parallel=4), Launch(tensor_parallel=2, pipeline_parallel=4),
     Launch(tensor_parallel=4, expert_parallel=True)],
)  # fmt: skip
def test_they_agree_with_the_layout(config: Config, launch: Launch) -> None:
    model, stored = published(config)
    by_files = [each.weights.likely_bytes for each in account(model, launch, stored=stored)]
    by_layout = [each.weights.likely_bytes for each in account(model, launch)]
    assert by_files == pytest.approx(by_layout, rel=0.003)


def test_doubly_quantized_scales_are_float32_in_newer_engines() -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    tensors = [
        (name, "U8", (64 * 1024, 1)),
        (f"{name}.absmax", "U8", (2048,)),
        (f"{name}.nested_absmax", "F32", (8,)),
    ]
    stored, model = stored_weights([header(tensors)]), read_model({"model_type": "no-such-model"})

    def taken(version: Version) -> int:
        return account(model, Launch(version=version), stored=stored)[0].weights.likely_bytes

    assert taken((0, 9, 1)) == 64 * 1024 + 2048 + 8 * 4
    assert taken((0, 9, 2)) == 64 * 1024 + 2048 * 4


def test_what_draft_layers_repeat_is_the_models_own() -> None:
    """An embedding and a head beside layer 2 of a model of two layers: the engine shares them."""
    layer = [(f"model.layers.{at}.self_attn.o_proj.weight", "BF16", (64, 64)) for at in (0, 1, 2)]
    repeated = [
        ("model.layers.2.embed_tokens.weight", "BF16", (1000, 64)),
        ("model.layers.2.shared_head.head.weight", "BF16", (1000, 64)),
    ]
    model = read_model({"model_type": "no-such-model", "num_hidden_layers": 2})

    def taken(tensors: list[tuple[str, str, tuple[int, ...]]]) -> int:
        stored = stored_weights([header(tensors)])
        return account(model, Launch(speculative_tokens=1), stored=stored)[0].weights.likely_bytes

    assert taken([*layer, *repeated]) == taken(layer) == 3 * 64 * 64 * 2


def test_equal_tensors_are_one_group() -> None:
    _, stored = published(LLAMA_8B)
    assert (stored.tensors, stored.files, len(stored.groups)) == (291, 33, 12)
    assert stored.size_bytes == 8_030_261_248 * 2


def test_an_unknown_architecture_is_exact_on_one_device() -> None:
    stored = stored_weights([header([("strange.0.a", "F16", (1000, 1000)), ("strange.1.a", "F16", (1000, 1000))])])
    model = read_model({"model_type": "no-such-model"})
    term = account(model, Launch(), stored=stored)[0].weights
    assert term.likely_bytes == 4_000_000
    assert term.high_bytes < GiB


def test_packed_ones_count_as_stored_and_floats_as_loaded() -> None:
    layer = "model.layers.0.mlp.up_proj."
    stored = stored_weights(
        [header([(layer + "qweight", "I32", (512, 64)), (layer + "scales", "F16", (32, 64)), ("n", "F32", (64,))])]
    )
    model = read_model({"model_type": "no-such-model"})
    assert account(model, Launch(), stored=stored)[0].weights.likely_bytes == 512 * 64 * 4 + 32 * 64 * 2 + 64 * 2


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("model.layers.{}.self_attn.q_proj.weight", Split.ROWS),
        ("model.layers.{}.self_attn.k_proj.weight", Split.HEADS),
        ("model.layers.{}.self_attn.o_proj.weight", Split.COLUMNS),
        ("model.layers.{}.mlp.down_proj.bias", Split.WHOLE),
        ("model.embed_tokens.weight", Split.VOCABULARY),
        ("lm_head.weight", Split.VOCABULARY),
        ("model.layers.{}.input_layernorm.weight", Split.WHOLE),
    ],
)
def test_names_tell_how_a_tensor_is_divided(name: str, split: Split) -> None:
    assert split_of(name) is split
