"""CUDA graphs grow with layers and captured sizes, and are none where nothing is captured."""

from dataclasses import replace
from typing import Any

import pytest

from heliosd.core.units import GiB
from heliosd.estimation.constants import ERAS, era
from heliosd.estimation.graphs import USUAL_COUNT, graph_bytes
from heliosd.estimation.launch import Launch, Platform
from heliosd.estimation.model import read_model
from tests.estimation.logged_models import LLAMA_8B, MIXTRAL

LAUNCH = Launch(version=(0, 19, 0))
CHOSEN = era(LAUNCH.version)


def graphs(config: dict[str, Any] = LLAMA_8B, launch: Launch = LAUNCH, count: int = USUAL_COUNT) -> int:
    return graph_bytes(read_model(config), launch, era(launch.version, v0=launch.v0), count)


def test_the_law() -> None:
    measured = CHOSEN.measured
    of_hidden = measured.graph_hidden_bytes * 4096 // 1024
    assert graphs() == measured.graph_layer_bytes * 32 + of_hidden + measured.graph_base_bytes
    assert graphs() / GiB == pytest.approx(0.94, rel=0.15), "Llama-3.1-8B on an H100 printed 0.94"


def test_nothing_is_captured() -> None:
    assert graphs(launch=replace(LAUNCH, enforce_eager=True)) == 0
    assert graphs(launch=replace(LAUNCH, platform=Platform.CPU)) == 0
    assert graphs(count=0) == 0


def test_sizes_and_stages() -> None:
    assert graphs(count=17) == pytest.approx(graphs() / 3, abs=1)
    assert graphs(launch=replace(LAUNCH, pipeline_parallel=2)) < graphs()
    assert graphs({**LLAMA_8B, "num_hidden_layers": 33}) > graphs()
    assert graphs({**MIXTRAL, "num_local_experts": 64}) > graphs(MIXTRAL), "kernels of many experts keep more"


def test_eras_follow_one_another() -> None:
    assert [each.since for each in ERAS] == sorted(each.since for each in ERAS)
    assert era((0, 19, 1)) is era((0, 16, 0))
    assert era((0, 5, 0), v0=True) is ERAS[0]
    assert era((9, 0, 0)) is ERAS[-1]
