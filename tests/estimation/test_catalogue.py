"""GPUs by the names people use, their memory, precisions and prices."""

import pytest

from heliosd.core.units import GiB
from heliosd.errors import BadRequest
from heliosd.estimation.catalogue import CARDS, CATALOGUE, SLICES, Link, gpu, priced
from heliosd.estimation.engine_cards import card
from heliosd.estimation.precision import Precision, Support


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("h100", "H100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("H100 80GB", "H100"),
        ("h100 pcie", "H100-PCIe"),
        ("NVIDIA H100 NVL 94GB", "H100-NVL"),
        ("4090", "RTX-4090"),
        ("RTX4090", "RTX-4090"),
        ("GeForce RTX 4090", "RTX-4090"),
        ("a100", "A100-80"),
        ("A100 40GB", "A100-40"),
        ("NVIDIA A100-SXM4-40GB", "A100-40"),
        ("v100", "V100-16"),
        ("V100 32gb", "V100-32"),
        ("a10", "A10"),
        ("a10g", "A10G"),
        ("l4", "L4"),
        ("l40s", "L40S"),
        ("H200 141GB", "H200"),
        ("pro 6000", "RTX-PRO-6000"),
        ("mi300", "MI300X"),
        ("GH200", "GH200-96"),
        ("MIG 1g.10gb", "A100-80 MIG 1g.10gb"),
        ("h100 mig 1g.10gb", "H100 MIG 1g.10gb"),
        ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", "H100 MIG 3g.40gb"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.10gb", "A100-40 MIG 1g.10gb"),
        ("1g.18gb", "H200 MIG 1g.18gb"),
    ],
)
def test_loose_names(said: str, name: str) -> None:
    assert gpu(said).name == name


def test_every_entry_is_found_by_its_own_names() -> None:
    assert [gpu(each.name).name for each in CATALOGUE] == [each.name for each in CATALOGUE]
    assert [gpu(each.device_name).name for each in CATALOGUE] == [each.name for each in CATALOGUE]


@pytest.mark.parametrize(
    ("said", "near"),
    [("h10", "H100"), ("rtx 3080", "RTX-3090"), ("1g.99gb", "MIG 1g."), ("", "V100"), ("H100 40GB", "H100")],
)
def test_unknown_names_get_the_nearest(said: str, near: str) -> None:
    with pytest.raises(BadRequest, match="cannot find a GPU") as raised:
        gpu(said)
    assert near in raised.value.message
    assert raised.value.param == "gpu"


def test_whole_cards_are_what_the_engine_sees() -> None:
    for each in CARDS:
        known = card(each.device_name)
        assert (each.usable_bytes, each.capability, each.multiprocessors) == (
            known.total_bytes, known.capability, known.multiprocessors,
        ), each.name  # fmt: skip
        assert known.total_bytes != 24 * GiB, f"{each.name} is not known to the engine's cards"


def test_slices_are_smaller_than_their_cards_and_cost_no_more() -> None:
    cards = {each.name: each for each in CARDS}
    for each in SLICES:
        whole = cards[each.slice_of or ""]
        assert each.usable_bytes <= whole.usable_bytes
        assert each.multiprocessors <= whole.multiprocessors
        assert 0 < each.usd_per_hour <= whole.usd_per_hour
        assert each.capability == whole.capability
        assert each.link is Link.NONE
    assert {each.slice_of for each in SLICES} == {"A100-40", "A100-80", "H100", "H200", "B200"}
    for name in ("A100-40", "A100-80", "H100", "H200", "B200"):
        parts = {each.name.split()[-1][:2] for each in SLICES if each.slice_of == name}
        assert parts == {"1g", "2g", "3g", "4g", "7g"}


def test_a_slice_holds_what_its_name_says_less_what_the_driver_keeps() -> None:
    for each in SLICES:
        said = int(each.name.split(".")[-1].removesuffix("gb"))
        assert 0.85 * said <= each.usable_bytes / GiB <= said, each.name


@pytest.mark.parametrize(
    ("name", "native", "stored"),
    [
        ("V100-16", {"fp32", "fp16"}, {"int4"}),
        ("T4", {"fp32", "fp16", "int8"}, {"fp8", "int4"}),
        ("A100-80", {"fp32", "fp16", "bf16", "int8"}, {"fp8", "int4", "fp4"}),
        ("L4", {"fp32", "fp16", "bf16", "int8", "fp8"}, {"int4", "fp4"}),
        ("H100", {"fp32", "fp16", "bf16", "int8", "fp8"}, {"int4", "fp4"}),
        ("B200", {"fp32", "fp16", "bf16", "int8", "fp8", "fp4"}, {"int4"}),
        ("RTX-5090", {"fp32", "fp16", "bf16", "int8", "fp8", "fp4"}, {"int4"}),
        ("MI300X", {"fp32", "fp16", "bf16", "int8", "fp8"}, {"int4", "fp4"}),
    ],
)
def test_precisions(name: str, native: set[str], stored: set[str]) -> None:
    found = gpu(name)
    assert {each.value for each in found.precisions} == native
    assert {each.value for each in Precision if found.support(each) is Support.STORED} == stored


def test_an_operators_prices_reach_the_slices() -> None:
    own = {each.name: each.usd_per_hour for each in priced({"h100": 5.20, "H100 1g.10gb": 0.1, "4090": 0})}
    assert own["H100"] == 5.20
    assert own["H100 MIG 1g.10gb"] == 0.1
    assert own["H100 MIG 3g.40gb"] == pytest.approx(2 * gpu("H100 MIG 3g.40gb").usd_per_hour, rel=0.01)
    assert own["RTX-4090"] == 0
    assert own["H200"] == gpu("h200").usd_per_hour


@pytest.mark.parametrize("price", [-1.0, float("nan"), float("inf"), 1e308])
def test_a_price_is_a_sensible_number(price: float) -> None:
    with pytest.raises(BadRequest, match="cannot rank by") as caught:
        priced({"h100": price})
    assert (caught.value.code, caught.value.param) == ("bad_price", "prices")
    with pytest.raises(BadRequest) as unknown:
        priced({"abacus": 1.0})
    assert (unknown.value.code, unknown.value.param) == ("unknown_gpu", "prices")
