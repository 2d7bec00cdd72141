"""How a model is divided over devices when only their number is given."""

from dataclasses import replace
from typing import Any

import pytest

from heliosd.core.hardware import Device, DeviceKind, LinkKind
from heliosd.core.names import DeviceId
from heliosd.core.units import GiB
from heliosd.estimation.division import Division, division
from heliosd.estimation.known import known_from
from heliosd.estimation.model import Model
from tests.core.test_stages import pairs
from tests.core.test_topology import fleet
from tests.estimation.test_estimate import LLAMA_8B, SMOLLM2


def model(config: dict[str, Any]) -> Model:
    found = known_from(config, []).model
    assert found is not None
    return found


def cards(count: int, kind: LinkKind | None) -> list[Device]:
    names = [DeviceId(f"g{at}") for at in range(count)]

    def links(own: DeviceId) -> tuple[tuple[DeviceId, LinkKind], ...]:
        return tuple((each, kind) for each in names if kind and each != own)

    return [Device(name, DeviceKind.CUDA, "card", 80 * GiB, links=links(name)) for name in names]


@pytest.mark.parametrize("kind", [LinkKind.NVLINK, LinkKind.PCIE_SWITCH, LinkKind.PCIE_HOST, None])
def test_ranks_share_a_model_where_they_can(kind: LinkKind | None) -> None:
    assert division(model(LLAMA_8B), 4, cards(4, kind)) == Division(4, 1)
    assert division(model(LLAMA_8B), 1, cards(4, kind)) == Division(1, 1)


def test_heads_that_do_not_divide_are_a_reason_for_stages() -> None:
    """Nine heads, three KV heads."""
    near = cards(4, LinkKind.NVLINK)
    assert division(model(SMOLLM2), 2, near) == Division(1, 2, "cannot divide 9 attention heads over 2 tensor ranks")
    assert division(model(SMOLLM2), 3, near) == Division(3, 1)
    odd = {**LLAMA_8B, "num_attention_heads": 6, "num_key_value_heads": 6, "hidden_size": 768}
    assert division(model(odd), 4, near) == Division(2, 2, "cannot divide 6 attention heads over 4 tensor ranks")


@pytest.mark.parametrize("kind", [LinkKind.NUMA, LinkKind.SYSTEM])
def test_slow_links_are_a_reason_for_stages_too(kind: LinkKind) -> None:
    found = division(model(LLAMA_8B), 2, cards(2, kind))
    assert (found.tensor, found.pipeline) == (1, 2)
    words = "same NUMA node" if kind is LinkKind.NUMA else "across NUMA nodes"
    assert found.reason == f"too slow for 2 tensor ranks is the best link here: g0+g1, {words}"


def test_ranks_stay_inside_pairs_that_a_fast_link_joins() -> None:
    found = division(model(LLAMA_8B), 4, pairs(4).values())
    assert (found.tensor, found.pipeline) == (2, 2)
    assert "too slow for 4 tensor ranks" in found.reason
    assert division(model(LLAMA_8B), 2, pairs(4).values()) == Division(2, 1), "there is a pair with NVLink"
    assert division(model(LLAMA_8B), 4, fleet(8, 4).values()) == Division(4, 1)


def test_what_has_no_stages_stays_in_one() -> None:
    slow = cards(2, LinkKind.SYSTEM)
    assert division(None, 2, slow) == Division(2, 1)
    bert = {
        "architectures": ["BertModel"], "model_type": "bert", "hidden_size": 768, "intermediate_size": 3072,
        "num_hidden_layers": 12, "num_attention_heads": 12, "vocab_size": 30522, "max_position_embeddings": 512,
    }  # fmt: skip
    assert division(model(bert), 2, slow) == Division(2, 1)


def test_where_no_division_starts_the_estimate_says_what_is_wrong() -> None:
    short = {**SMOLLM2, "num_hidden_layers": 1}
    assert division(model(short), 2, cards(2, LinkKind.NVLINK)) == Division(2, 1)
    assert division(model(SMOLLM2), 2, [replace(each, kind=DeviceKind.MIG) for each in cards(2, None)]).tensor == 1
