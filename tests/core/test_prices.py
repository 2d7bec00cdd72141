"""Prices of devices by a part of their name, of memory by its part of a device."""

import pytest

from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.metering import Tokens
from heliosd.core.names import DeviceId
from heliosd.core.prices import Prices
from heliosd.core.units import GiB


def device(name: str, capacity_gib: int = 80) -> Device:
    return Device(DeviceId("g0"), DeviceKind.CUDA, name, capacity_gib * GiB)


def test_half_of_a_device_for_an_hour_costs_half_its_hour() -> None:
    prices = Prices(gpu_hour={"H100": 4.0})
    assert prices.memory(device("NVIDIA H100 80GB HBM3"), 40 * GiB * 3600) == pytest.approx(2.0)
    assert prices.memory(device("NVIDIA L4"), 40 * GiB * 3600) == 0.0
    assert prices.memory(None, 40 * GiB * 3600) == 0.0


def test_the_longest_name_that_fits_counts_and_a_star_takes_the_rest() -> None:
    prices = Prices(gib_hour={"*": 1.0, "h100": 2.0, "H100 NVL": 3.0}, gpu_hour={"*": 1000.0})
    hour = GiB * 3600
    found = [prices.memory(device(name), hour) for name in ("NVIDIA H100 NVL", "NVIDIA H100 PCIe", "NVIDIA L4")]
    assert found == [3.0, 2.0, 1.0]


def test_cached_tokens_may_cost_less() -> None:
    tokens = Tokens(2_000_000, 1_000_000, 500_000)
    assert Prices(prompt_million=2.0, completion_million=8.0).tokens(tokens) == (4.0, 4.0)
    assert Prices(prompt_million=2.0, cached_million=0.5).tokens(tokens) == (2.5, 0.0)


def test_a_gib_of_several_devices_costs_what_they_cost_together() -> None:
    prices = Prices(gpu_hour={"H100": 4.0, "L4": 0.6})
    assert prices.gib_of([device("NVIDIA H100"), device("NVIDIA L4", 24)]) == pytest.approx(4.6 / 104)
    assert prices.gib_of([device("NVIDIA A10")]) is None
    assert prices.gib_of([]) is None
