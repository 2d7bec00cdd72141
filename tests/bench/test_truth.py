"""The measured accounts are read as they are meant, constants are fitted robustly, and the laws hold on them."""

from dataclasses import replace
from pathlib import Path

import pytest

from heliosd.core.units import GiB, MiB
from heliosd.estimation.constants import ERAS
from heliosd.estimation.launch import Platform
from tests.bench.truth import GOALS, report
from tests.bench.truth_fit import Sample, fit, least_deviation, least_deviation_plane
from tests.bench.truth_predict import Outcome, outcomes
from tests.bench.truth_rows import DIRECTORY, UNKNOWN_V0, Row, read_rows

HEADER = (
    "id,source,vllm_version,engine(V0/V1),model,weight_dtype,quantization,kv_cache_dtype,tp,pp,max_model_len,"
    "max_num_seqs,max_num_batched_tokens,enforce_eager,gpu,gpu_total_gib,gpu_memory_utilization,weights_gib_per_gpu,"
    "non_torch_gib,activation_peak_gib,cuda_graph_gib,kv_cache_gib,kv_cache_tokens,num_gpu_blocks,block_size,notes"
)
LLAMA = """{"llama": {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
"intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
"vocab_size": 128256, "max_position_embeddings": 131072, "tie_word_embeddings": false, "torch_dtype": "bfloat16"}}"""


def rows_of(folder: Path, *lines: str) -> list[Row]:
    (folder / "truth_test.csv").write_text("\n".join((HEADER, *lines)) + "\n", encoding="utf-8")
    (folder / "truth_configs.json").write_text(LLAMA, encoding="utf-8")
    return read_rows(folder)


def test_a_row_is_a_launch_and_what_was_printed(tmp_path: Path) -> None:
    line = (
        "x1,somewhere,0.12.0,V1,llama,torch.bfloat16,none,auto,2,1,8192,,8192,False,NVIDIA H100,79.19,0.9,7.50,0.54,"
        "4.83,-0.22,45.0,737280,,16,max cudagraph capture size 16; chunked_prefill=True; LoRA enabled"
    )
    (row,) = rows_of(tmp_path, line)
    assert row.launch.version == (0, 12, 0)
    assert row.launch.tensor_parallel == 2
    assert row.launch.max_num_seqs == 8, "V1 captures up to twice the sequences"
    assert row.launch.max_loras == 1
    assert row.measured.weights_bytes == round(7.5 * GiB)
    assert row.measured.graphs_bytes == round(-0.22 * GiB)


def test_an_unnamed_card_of_80_gb_is_told_by_what_torch_sees(tmp_path: Path) -> None:
    line = "x{},s,0.10.2,V1,llama,,none,auto,1,1,4096,,{},False,,{},0.9,14.99,0.02,0.32,,,,,,"
    first, second = rows_of(tmp_path, line.format(1, 2048, 79.25), line.format(2, 8192, 79.18))
    assert "A100" in first.launch.device_name
    assert "H100" in second.launch.device_name


def test_a_release_is_told_by_the_notes_or_the_thread(tmp_path: Path) -> None:
    line = "x{},{},,V0,llama,,none,auto,1,1,4096,,,False,,,0.9,14.99,,,,,,,,{}"
    rows = rows_of(
        tmp_path,
        line.format(1, "somewhere", "main (v0.5.4+) with extra prints"),
        line.format(2, "vllm-project/vllm#12258", ""),
        line.format(3, "vllm-project/vllm PR#14447", "2 of v0 only"),
        line.format(4, "somewhere", "nothing said"),
    )
    assert [row.launch.version for row in rows] == [(0, 5, 4), (0, 6, 6), (0, 7, 3), UNKNOWN_V0]
    assert not any(row.version_known for row in rows), "none of the logs names it"


def test_a_card_of_amd_is_told_by_the_notes_or_its_size(tmp_path: Path) -> None:
    line = "x{},s,0.9.0,V0,llama,,none,auto,1,1,4096,,,False,,{},0.9,14.99,,,,,,,,{}"
    rows = rows_of(tmp_path, line.format(1, 191.45, ""), line.format(2, 23.98, "ROCm"), line.format(3, 23.98, ""))
    assert [row.launch.platform for row in rows] == [Platform.ROCM, Platform.ROCM, Platform.CUDA]


def test_weights_and_tokens_are_predicted_to_the_printed_digit(tmp_path: Path) -> None:
    line = (
        "x1,s,0.19.0,V1,llama,torch.bfloat16,none,auto,1,1,8192,1024,8192,False,NVIDIA H100 80GB,79.19,0.95,14.99,0.25,"
        "1.89,0.96,58.0,475136,,,"
    )
    rows = rows_of(tmp_path, line)
    found = {each.term: each for each in outcomes(rows, [])}
    assert found["weights"].predicted / GiB == pytest.approx(14.99, abs=0.006)
    assert found["activation"].predicted / GiB == pytest.approx(1.89, abs=0.01)
    assert found["kv_tokens"].predicted == pytest.approx(475_136, rel=0.001)
    assert found["total"].error < 0.01


def test_what_a_row_teaches_is_left_out_when_it_is_predicted() -> None:
    def sample(source: str, layers: int, graphs: int, outside: int) -> Sample:
        return Sample(source, "v1", layers, 4096, float(graphs), outside, "alone")

    told = [sample(f"s{layers}", layers, layers * 20 * MiB + 300 * MiB, 250 * MiB) for layers in (20, 28, 32, 40, 64)]
    spoilt = [*told, sample("odd", 30, 9000 * MiB, 9000 * MiB)]
    with_all, without = fit(spoilt)["v1"], fit(spoilt, "odd")["v1"]
    assert without == fit(told)["v1"]
    assert without.graph_layer_bytes == pytest.approx(20 * MiB, rel=0.01)
    assert with_all.graph_layer_bytes == pytest.approx(20 * MiB, rel=0.25), "one absurd row must not move the line"
    outside = fit([Sample(f"s{size}", "v1", 32, 4096, None, size * MiB, "together") for size in (500, 900, 2000)])["v1"]
    assert (outside.together_bytes, outside.together_doubt_bytes) == (900 * MiB, 1100 * MiB)
    assert fit([])["v0"].graph_layer_bytes == ERAS[0].measured.graph_layer_bytes


def test_the_line_ignores_rows_far_off() -> None:
    slope, base = least_deviation([(10, 110.0), (20, 210.0), (30, 310.0), (40, 5000.0), (50, 510.0)])
    assert (slope, base) == pytest.approx((10, 10))


def test_so_does_the_plane() -> None:
    points = [(float(x), float(y), 10 * x + 90 * y + 200.0) for x in (20, 30, 40, 60) for y in (2, 4, 5)]
    points[3] = (30.0, 2.0, 9000.0)
    assert least_deviation_plane(points) == pytest.approx((10, 90, 200), rel=0.05)


def test_being_under_is_measured_by_the_device(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, "x1,s,0.19.0,V1,llama,,none,auto,1,1,,,,,,100,,,,,,,,,,")
    low = Outcome(row, "total", 10 * GiB, 12 * GiB, "")
    near = Outcome(row, "total", 10 * GiB, round(10.9 * GiB), "")
    assert low.under and not near.under
    assert not replace(low, booked=12 * GiB).booked_under
    assert report([low, near])["total"].under_share == 0.5


@pytest.mark.slow
@pytest.mark.skipif(not (DIRECTORY / "truth_dev.csv").is_file(), reason="the accounts are not beside the checkout")
def test_the_laws_hold_on_the_accounts_of_real_gpus() -> None:
    """Medians on the rows that are not forks, where a log says what was started: a wrong law shows here at once."""
    rows = [row for row in read_rows(DIRECTORY) if row.version_known and not row.fork]
    scores = report(outcomes(rows, rows))
    for term, (middle, _) in GOALS.items():
        slack = 2 if term == "total" else 1
        assert scores[term].median <= slack * middle, f"{term}: {scores[term]}"
    assert scores["kv_tokens"].p90 <= 0.02
