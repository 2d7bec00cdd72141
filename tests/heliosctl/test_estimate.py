"""The command estimate: what it asks, what it shows, how it ends."""

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heliosctl.bars import WIDTH, Part, bar, cells
from heliosd.core.units import GiB
from heliosd.wire import (
    AccountView,
    AccuracyView,
    ChangeView,
    EstimateView,
    OptionView,
    OverflowView,
    RecommendationView,
    SizingView,
    TermAccuracyView,
    TermView,
)
from tests.heliosctl.conftest import Ended
from tests.heliosctl.samples import ESTIMATE
from tests.heliosctl.stand_in import StandIn
from tests.heliosctl.stand_in_replies import Refusal

Ctl = Callable[..., Ended]


def test_predicted_stands_beside_measured(daemon, ctl):
    ended = ctl("estimate", "org/small")
    lines = ended.out.splitlines()
    assert ended.code == 0
    assert lines[2].split() == ["PER", "DEVICE", "PREDICTED", "MEASURED", "DIFFERENCE"]
    assert " ".join(lines[5].split()) == "overhead 320.0 MiB 300.0 MiB +6.7%"
    assert " ".join(lines[6].split()) == "total 1.6 GiB 1.5 GiB +1.3%"
    assert "fits: needs 1.6 GiB, 5.8 GiB free on gpu0" in ended.out


def test_without_a_replica_nothing_is_measured(daemon, ctl):
    daemon.replicas.clear()
    assert "MEASURED" not in ctl("estimate", "org/small").out


def test_wishes_reach_the_daemon_as_bytes(daemon, ctl):
    ctl("estimate", "org/small", "--kv-cache", "4GiB", "--max-model-len", "4096", "--max-num-seqs", "8", "-o", "json")
    assert daemon.asked[-1][3] == {
        "model": "org/small",
        "kv_cache_bytes": 4 * 1024**3,
        "max_model_len": 4096,
        "max_num_seqs": 8,
    }


def test_what_never_fits_has_its_own_exit_code(daemon, ctl):
    daemon.estimate = EstimateView(**(ESTIMATE.model_dump() | {"verdict": "never_fits", "reason": "needs 99 GiB"}))
    ended = ctl("estimate", "org/small")
    assert ended.code == 6
    assert "never fits: needs 99 GiB" in ended.out


def test_a_refused_estimate_too(daemon, ctl):
    daemon.refusals["POST /helios/v1/estimate"] = Refusal(422, "model_cannot_fit", "cannot fit org/small")
    assert ctl("estimate", "org/small").code == 6


def test_nonsense_sizes_are_usage_errors(daemon, ctl):
    ended = ctl("estimate", "org/small", "--kv-cache", "much")
    assert ended.code == 2
    assert "write it like 40GiB" in ended.err


# ---- what would be elsewhere ----------------------------------------------------------------------------------------

CONFIG = {"model_type": "llama", "num_hidden_layers": 2, "time_step_limit": [0.0, float("inf")]}


def account(stage: int = 0, devices: int = 1, weights: int = 40, **changes: Any) -> AccountView:
    sizes = {"weights": weights * GiB, "kv_cache": 20 * GiB, "activation": GiB, "graphs": 0, "non_torch": GiB // 2}
    total = sum(sizes.values())
    values: dict[str, Any] = {
        "stage": stage,
        "devices": devices,
        "terms": [
            TermView(name=name, likely_bytes=size, low_bytes=size, high_bytes=size + GiB, why=f"because of {name}")
            for name, size in sizes.items()
        ],
        "total_bytes": total,
        "booked_bytes": total + GiB,
        "device_bytes": 80 * GiB,
    }
    return AccountView(**(values | changes))


def estimated(*accounts: AccountView, **changes: Any) -> EstimateView:
    values = {"accounts": list(accounts), "device": "H100", "parameters": 8_030_261_248, "concurrency": 2.5}
    return EstimateView(**(ESTIMATE.model_dump() | values | changes))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    return path


def body(daemon: StandIn) -> Any:
    return next(asked[3] for asked in reversed(daemon.asked) if asked[1] == "/helios/v1/estimate")


def test_a_config_is_read_here_and_asked_about_there(daemon: StandIn, ctl: Ctl, config: Path) -> None:
    daemon.estimate = estimated(account())
    words = "--gpu H100 --tp 2 --pp 3 --dp 4 --ep --context 32768 --concurrency 64 --precision fp8 --kv-dtype fp8"
    assert ctl("estimate", str(config), *words.split()).code == 0
    assert body(daemon) == {
        "config": CONFIG,
        "gpu": "H100",
        "tensor_parallel": 2,
        "pipeline_parallel": 3,
        "data_parallel": 4,
        "expert_parallel": True,
        "max_model_len": 32768,
        "concurrency": 64,
        "precision": "fp8",
        "kv_cache_dtype": "fp8",
    }
    assert all(asked[1] != "/helios/v1/replicas" for asked in daemon.asked)  # nothing here is measured


def test_a_directory_brings_the_headers_of_its_weights(daemon: StandIn, ctl: Ctl, config: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[1000],"data_offsets":[0,4000]}}'
    (config.parent / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4000))
    ctl("estimate", str(config.parent), "--gpu", "H100")
    assert body(daemon)["config"] == CONFIG
    assert body(daemon)["headers"] == [{"size_bytes": 8 + len(header) + 4000, "header": header.decode()}]


def test_a_broken_weight_file_is_left_out(daemon: StandIn, ctl: Ctl, config: Path) -> None:
    (config.parent / "model.safetensors").write_bytes(b"no")
    assert ctl("estimate", str(config.parent)).code == 0
    assert body(daemon) == {"config": CONFIG}


def test_a_repository_of_the_hub(daemon: StandIn, ctl: Ctl) -> None:
    ctl("estimate", "--hub", "org/name", "--revision", "v1", "--gpu", "L4")
    assert body(daemon) == {"hub": "org/name", "revision": "v1", "gpu": "L4"}


def test_training_takes_the_options_that_mean_the_same(daemon: StandIn, ctl: Ctl, config: Path) -> None:
    words = "--train lora --context 4096 --batch 4 --rank 8 --checkpointing --zero 3 --dp 8 --optimizer adam8bit"
    ctl("estimate", str(config), *words.split())
    assert body(daemon)["train"] == {
        "method": "lora",
        "optimizer": "adam8bit",
        "batch_size": 4,
        "sequence_length": 4096,
        "rank": 8,
        "gradient_checkpointing": True,
        "sharding": "zero3",
        "data_parallel": 8,
    }
    assert body(daemon).keys() == {"config", "train"}


def test_a_load_is_whole_or_refused(daemon: StandIn, ctl: Ctl, config: Path) -> None:
    words = ["--rate", "2", "--prompt", "800", "--output-tokens", "300"]
    ended = ctl("estimate", str(config), *words)
    assert (ended.code, "--speed" in ended.err) == (2, True)
    overflow = OverflowView(
        sequences=20, tokens=19_000, capacity_tokens=46_000, full_share=0.25, fitting_rate=3.3, queue_grows=False
    )
    daemon.estimate = estimated(account(), overflow=overflow)
    ended = ctl("estimate", str(config), *words, "--speed", "30")
    assert body(daemon)["load"] == {
        "rate": 2.0, "prompt_tokens": 800.0, "output_tokens": 300.0, "tokens_per_second": 30.0,
    }  # fmt: skip
    assert "preempting 25.0% of the time" in " ".join(ended.out.split())


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no such file"), ("{", "as JSON"), ("[" * 100_000, "as JSON"), (" " * 8 * 1024**2, "the limit is")],
)
def test_a_file_that_is_no_config(daemon: StandIn, ctl: Ctl, tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    ended = ctl("estimate", str(path))
    assert ended.code == 2
    assert ended.err.startswith("heliosctl: cannot ")
    assert said in ended.err


def test_nothing_or_two_things_are_usage_errors(daemon: StandIn, ctl: Ctl) -> None:
    assert ctl("estimate").code == 2
    assert ctl("estimate", "org/small", "--hub", "org/name").code == 2


def test_without_a_daemon_it_says_so(ctl: Ctl, config: Path) -> None:
    ended = ctl("estimate", str(config))
    assert ended.code == 3
    assert "cannot reach heliosd" in ended.err


# ---- what is shown ---------------------------------------------------------------------------------------------------


def test_a_device_is_drawn_in_ascii_of_eighty_columns(daemon: StandIn, ctl: Ctl, config: Path) -> None:
    daemon.estimate = estimated(account(), account(1, 4, 45), reason="needs much " * 12)
    ended = ctl("estimate", str(config))
    assert ended.out.isascii()
    assert max(map(len, ended.out.splitlines())) <= 80
    lines = ended.out.splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("stage 0"))
    drawn = lines[first + 1].strip()
    assert len(drawn) == WIDTH
    assert drawn.count("#") == pytest.approx(WIDTH / 2, abs=1)  # 40 of 80 GiB
    assert drawn.count("=") == pytest.approx(WIDTH / 4, abs=1)
    assert drawn.endswith(".")  # free
    assert "# weights 40.0 GiB" in ended.out
    assert "stage 1, 4 x H100, each: 67.5 GiB of 80.0 GiB" in ended.out
    assert "stage 1, which needs most" in ended.out


def test_where_each_number_comes_from(daemon: StandIn, ctl: Ctl, config: Path) -> None:
    daemon.estimate = estimated(account())
    assert "because of" not in ctl("estimate", str(config)).out
    ended = ctl("estimate", str(config), "--why")
    assert "- activation: because of activation" in ended.out
    assert ["KV", "cache", "20.0", "GiB", "20.0", "GiB", "21.0", "GiB"] in [x.split() for x in ended.out.splitlines()]


def test_what_helps_and_what_is_recommended(daemon: StandIn, ctl: Ctl, config: Path) -> None:
    change = ChangeView(
        kind="more devices", sentence="fits on 2 x H100", gpu="H100", devices=2, usd_per_hour=5.2, needed_bytes=GiB
    )
    daemon.estimate = estimated(account(0, 1, 90), verdict="never_fits", changes=[change])
    ended = ctl("estimate", str(config))
    assert ended.code == 6
    assert "- more devices: fits on 2 x H100" in ended.out
    assert "the device ends here: 80.0 GiB" in ended.out
    option = OptionView(
        gpu="L40S", devices=2, parallel="TP2", precision="bf16", usd_per_hour=2.2, longest_context=8192,
        most_concurrency=20, sentence="2 x L40S",
    )  # fmt: skip
    daemon.estimate = estimated(
        account(), verdict="never_fits", recommendation=RecommendationView(options=[option], misses=["T4: too small"])
    )
    ended = ctl("estimate", str(config), "--recommend", "--gpus", "L40S,T4")
    assert (ended.code, body(daemon)["gpus"], body(daemon)["recommend"]) == (0, ["L40S", "T4"], True)
    assert "2 x L40S   TP2     bf16        8,192        20    2.20" in ended.out


def test_sizes_and_prices(daemon: StandIn, ctl: Ctl, config: Path) -> None:
    sizing = SizingView(max_num_seqs=812, max_num_batched_tokens=None, max_model_len=131_072)
    daemon.estimate = estimated(account(), sizing=sizing)
    ended = ctl(
        "estimate", str(config), "--size", "--speculative", "3", "--price", "H100=1.99", "--price", "MIG 1g.10gb=0"
    )
    assert "up to 812 sequences at once, or no tokens a step at all, or up to 131,072" in " ".join(ended.out.split())
    asked = body(daemon)
    assert (asked["size"], asked["speculative_tokens"]) == (True, 3)
    assert asked["prices"] == {"H100": 1.99, "MIG 1g.10gb": 0.0}
    for wrong in ("H100", "=3", "H100=cheap", "H100=-1", "H100=inf"):
        ended = ctl("estimate", str(config), "--recommend", "--price", wrong)
        assert (ended.code, "cannot read" in ended.err) == (2, True)


def test_accuracy_by_term(daemon: StandIn, ctl: Ctl) -> None:
    ended = ctl("estimate", "--accuracy")
    assert (ended.code, ended.out) == (0, "")
    assert "no start was measured" in ended.err
    term = TermAccuracyView(name="kv_cache", starts=12, median=0.004, p90=0.031, worst=0.2, under_share=0.0)
    daemon.accuracy = AccuracyView(terms=[term])
    ended = ctl("estimate", "--accuracy")
    assert ended.out.splitlines()[1].split() == ["KV", "cache", "12", "0.40%", "3.10%", "20.00%", "0.00%"]
    assert json.loads(ctl("estimate", "--accuracy", "-o", "json").out)["terms"][0]["starts"] == 12


def test_json_is_the_answer_itself(daemon: StandIn, ctl: Ctl, config: Path) -> None:
    daemon.estimate = estimated(account())
    assert EstimateView.model_validate_json(ctl("estimate", str(config), "-o", "json").out) == daemon.estimate


def test_every_part_has_a_cell_and_none_is_drawn_twice() -> None:
    assert cells([100, 1, 0], 101, 10) == [8, 1, 1]
    assert cells([50, 50], 200, 10) == [3, 2]
    assert sum(cells([1] * 9, 9, 72)) == 72


def test_a_terminal_gets_shapes_that_differ_and_colours() -> None:
    parts = [Part("weights", 40 * GiB), Part("KV cache", 20 * GiB)]
    drawn = bar(parts, GiB, 80 * GiB, plain=False)
    shapes = re.sub(r"\x1b\[[0-9;]*m", "", drawn.splitlines()[0]).strip()
    assert len(shapes) == WIDTH
    assert shapes.index("▓") > 30  # behind the weights
    assert shapes.count("█") == pytest.approx(36, abs=1)
    assert "\x1b[38;5;25m" in drawn
