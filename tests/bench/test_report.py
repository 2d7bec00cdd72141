import json
import tomllib
from pathlib import Path

import pytest

from tests.bench.arguments import NAME, Arguments
from tests.bench.load import Answer, _answer, prompts
from tests.bench.report import (
    Figures,
    Pair,
    coldstart_object,
    figures,
    gateway_object,
    percentile,
    ratios,
    startup_object,
    write_json,
)
from tests.bench.table import print_table, span


def round_of(tokens: float, ttft: float, itl: float) -> Pair:
    return Pair(Figures(tokens * 100, ttft * 0.1, itl * 0.02), Figures(100, 0.1, 0.02))


def event(content: str | None = None, usage: int | None = None) -> bytes:
    choices = [] if content is None else [{"delta": {"content": content}}]
    return b"data: " + json.dumps({"choices": choices, "usage": usage and {"completion_tokens": usage}}).encode()


def test_figures_are_over_all_streams() -> None:
    found = figures([Answer(10.0, (10.5, 10.6, 11.0), 3, "abc"), Answer(10.2, (10.3, 12.0), 2, "de")])
    assert found.tokens_per_s == pytest.approx(5 / 2.0)
    assert found.ttft_p50_s == pytest.approx(0.3)
    assert found.itl_p99_s == pytest.approx(1.7)


def test_percentile_is_a_value_that_occurred() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert percentile(values, 0.99) == 99
    assert percentile(values, 0.5) == 50
    assert percentile([7.0], 0.99) == 7


def test_a_ratio_is_taken_in_each_round_and_then_the_median() -> None:
    found = ratios([round_of(1.2, 0.9, 1.0), round_of(0.8, 1.3, 1.4), round_of(1.1, 1.0, 5.0)])
    assert (found.tokens_per_s, found.ttft_p50, found.itl_p99) == pytest.approx((1.1, 1.0, 1.4))


def test_the_gateway_writes_what_the_project_reads(tmp_path: Path) -> None:
    levels = {streams: ratios([round_of(1 + streams / 100, streams, 2.0)]) for streams in (1, 8, 32)}
    write_json(gateway_object(levels), tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == {
        "tokens_per_s_ratio": {"1": 1.01, "8": 1.08, "32": 1.32},
        "ttft_p50_ratio": 8.0,
        "itl_p99_ratio": 2.0,
    }


def test_the_cold_start_writes_medians_and_the_second_start() -> None:
    phases = [{"fork": 0.1, "weights": 0.5}, {"fork": 0.2, "weights": 0.3}, {"fork": 0.3, "weights": 0.4}]
    assert coldstart_object([3.0, 1.0, 2.0], [40.0, 20.0, 30.0], [], [0.5, 0.4, 0.9], phases) == {
        "vs_vllm_serve": round(2 / 30, 4),
        "vs_llama_server": None,
        "hot_swap_s": 0.5,
        "second_start_s": 1.0,
        "phases": {"fork": 0.2, "weights": 0.4},
    }


def test_the_start_up_writes_its_limit() -> None:
    assert startup_object([0.5, 0.7, 0.6], 1.5) == {"api_up_s": 0.6, "limit_s": 1.5}


def test_without_a_file_nothing_is_written() -> None:
    write_json({}, None)


def test_an_answer_has_a_time_for_each_piece_of_text() -> None:
    events = [event(""), event("On"), event("ce"), event(usage=2), b"data: [DONE]"]
    answer = _answer(1.0, [1.1, 1.5, 1.75, 1.76, 1.77], events, 2)
    assert answer == Answer(1.0, (1.5, 1.75), 2, "Once")
    assert (answer.first_s, answer.gaps_s) == (0.5, [0.25])


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([event("On"), event(usage=1)], "1 tokens came instead of 2"),
        ([event("On"), b'data: {"error": {"message": "the engine died"}}'], "the engine died"),
    ],
)
def test_an_answer_that_is_not_whole_is_no_measurement(events: list[bytes], words: str) -> None:
    with pytest.raises(RuntimeError, match=words):
        _answer(1.0, [1.0] * len(events), events, 2)


def test_prompts_differ_within_a_round_and_are_the_same_for_both_servers() -> None:
    assert len({prompt.split(" ")[0] for prompt in prompts("0.8", 16)}) == 16
    assert prompts("0.8", 16) == prompts("0.8", 16)


def test_both_servers_are_told_the_same(tmp_path: Path) -> None:
    told = Arguments(tmp_path, dtype="bfloat16", max_model_len=512, max_num_seqs=4, kv_cache_bytes=1024, threads=3)
    toml = tomllib.loads(told.toml())
    model, engines = toml["models"][NAME], toml["engines"]
    flags = dict(flag.removeprefix("--").split("=") for flag in told.flags() if "=" in flag)
    assert engines["threads"] == 3
    assert told.environment()["OMP_NUM_THREADS"] == "3"
    assert flags["dtype"] == model["dtype"] == "bfloat16"
    assert (int(flags["max-model-len"]), int(flags["max-num-seqs"])) == (model["max_model_len"], model["max_num_seqs"])
    assert int(flags["kv-cache-memory-bytes"]) == model["kv_cache"] == 1024
    assert int(flags["max-num-batched-tokens"]) == model["engine_args"]["max_num_batched_tokens"]
    assert {"--enforce-eager", "--enable-prefix-caching"} <= set(told.flags())
    assert model["engine_args"]["enforce_eager"] and model["engine_args"]["enable_prefix_caching"]


def test_a_table_shows_every_row_and_note(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("title", ("", "heliosd", "peer"), [("tokens/s", "120.0", "100.0")], ["what [both] are told"])
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("title", "tokens/s", "120.0", "100.0", "what [both] are told"))


def test_spans_are_written_for_people() -> None:
    assert (span(0.0123), span(1.234)) == ("12.3 ms", "1.23 s")
