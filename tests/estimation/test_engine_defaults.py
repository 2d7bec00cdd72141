"""The engine's defaults as releases had them, and what its sampler takes, against logs of real starts."""

import pytest

from heliosd.core.units import GiB
from heliosd.estimation.engine_cards import card
from heliosd.estimation.engine_defaults import Books, Facts, Printed, engine_defaults
from heliosd.estimation.engine_sampler import (
    SamplerPath,
    matrix_workspace_bytes,
    sampler_path,
    sampler_peak_bytes,
    sampling_hidden_rows,
)
from heliosd.estimation.engine_versions import parse_version
from heliosd.estimation.launch import Launch, Platform, Version

H100 = "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("0.19.0", (0, 19, 0)),
        ("0.8.5.post1", (0, 8, 5)),
        ("v0.10.1.1", (0, 10, 1)),
        ("0.9.1.dev287+g89b1388d8", (0, 9, 1)),
        ("0.26.1.dev0+gd3d3b2cca.d20260805 (fork image)", (0, 26, 1)),
        ("0.11.0rc2.dev113+gf9e714813", (0, 11, 0)),
        ("0.11.1+9114fd76.nv25.12", (0, 11, 1)),
        ("0.7.x-era", (0, 7, 0)),
        ("0.10.x main 2025-08", (0, 10, 0)),
        ("0.18/0.19", (0, 18, 0)),
        ("0.8.x (loader.py:447, 2025-04-20)", (0, 8, 0)),
        ("main aae08249", None),
        ("source 3de6e6a3 (2024-07)", None),
        ("custom tree (0.0.0+local)", None),
        ("0.1.dev19262+gb6bbf29dd (vllm-openai:kimi-k3)", None),
        ("dev", None),
        ("", None),
    ],
)
def test_versions_as_logs_and_people_write_them(text: str, version: Version | None) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize(
    ("name", "gib", "large"),
    [
        (H100, 79.18, True),
        ("GH200 96GB (95.0GiB)", 94.5, True),
        ("NVIDIA A100-SXM4-40GB", 39.49, False),
        ("RTX PRO 6000 Blackwell 96GB", 94.97, True),
        ("22GiB-class (21.95GiB; L4/A10G)", 22.0, False),
        ("Tesla T4", 14.56, False),
        ("MI300X", 191.9, True),
        ("nobody knows", 24.0, False),
    ],
)
def test_cards_by_name(name: str, gib: float, large: bool) -> None:
    found = card(name)
    assert found.gib == pytest.approx(gib, abs=0.01)
    assert (engine_defaults(Launch(device_name=name), Facts()).max_num_seqs == 1024) == large


def test_given_memory_beats_the_name() -> None:
    assert card("H100", 94 * GiB).total_bytes == 94 * GiB
    assert card("AMD Radeon gfx1201 (RDNA4)").platform is Platform.ROCM
    assert card("cpu").platform is Platform.CPU


@pytest.mark.parametrize(
    ("version", "name", "offline", "expected"),
    [
        ((0, 6, 6), H100, False, (2048, 1024)),
        ((0, 7, 3), H100, False, (8192, 1024)),
        ((0, 8, 3), "A100 80GB", False, (2048, 1024)),
        ((0, 8, 4), "A100 80GB", False, (2048, 256)),
        ((0, 8, 5), "A100 80GB", False, (8192, 1024)),
        ((0, 9, 0), "A100 80GB", False, (2048, 256)),
        ((0, 9, 0), "A800 80GB", False, (8192, 1024)),
        ((0, 19, 0), H100, False, (8192, 1024)),
        ((0, 19, 0), H100, True, (16384, 1024)),
        ((0, 19, 0), "RTX 4090", True, (8192, 256)),
        ((0, 27, 1), "B200", False, (8192, 1024)),
        ((0, 28, 0), "B200", False, (16384, 1024)),
        ((0, 28, 0), "H200", False, (8192, 1024)),
        ((0, 32, 0), "GB10 (DGX Spark)", False, (8192, 1024)),
        ((0, 32, 0), "cpu", False, (2048, 128)),
    ],
)
def test_batches_of_v1(version: Version, name: str, offline: bool, expected: tuple[int, int]) -> None:
    platform = Platform.CPU if name == "cpu" else Platform.CUDA
    chosen = engine_defaults(Launch(version, device_name=name, offline=offline, platform=platform), Facts())
    assert (chosen.max_num_batched_tokens, chosen.max_num_seqs) == expected


@pytest.mark.parametrize(
    ("version", "facts", "tokens"),
    [
        ((0, 4, 1), Facts(model_len=131072), 131072),
        ((0, 5, 2), Facts(model_len=131072), 131072),
        ((0, 5, 4), Facts(model_len=131072), 512),
        ((0, 6, 4), Facts(model_len=131072), 512),
        ((0, 6, 5), Facts(model_len=131072), 2048),
        ((0, 6, 5), Facts(model_len=32768), 32768),
        ((0, 6, 5), Facts(model_len=1024), 2048),
        ((0, 7, 3), Facts(model_len=131072, sliding_window=True), 131072),
        ((0, 7, 3), Facts(model_len=131072, mla=True), 2048),
        ((0, 8, 5), Facts(model_len=131072, mla=True), 131072),
        ((0, 6, 2), Facts(model_len=1024, multimodal=True), 4096),
        ((0, 8, 5), Facts(model_len=1024, multimodal=True), 5120),
        ((0, 8, 5), Facts(model_len=512, pooling=True), 32768),
    ],
)
def test_batches_of_v0(version: Version, facts: Facts, tokens: int) -> None:
    chosen = engine_defaults(Launch(version, v0=True, device_name=H100), facts)
    assert (chosen.max_num_batched_tokens, chosen.max_num_seqs) == (tokens, 256)


def test_batches_without_chunks() -> None:
    embedder = Facts(model_len=40960, pooling=True, causal=False)
    small = Facts(model_len=512, pooling=True, causal=False)
    for version, facts, tokens in (
        ((0, 10, 0), small, 512),
        ((0, 11, 0), embedder, 40960),
        ((0, 12, 0), small, 8192),
        ((0, 12, 0), embedder, 40960),
    ):
        assert engine_defaults(Launch(version, device_name=H100), facts).max_num_batched_tokens == tokens
    whisper = engine_defaults(Launch(max_num_seqs=4, device_name=H100), Facts(model_len=448, encoder_decoder=True))
    assert whisper.max_num_batched_tokens == 4 * 448
    image = Facts(multimodal=True, prefix_item_tokens=10_000)
    assert engine_defaults(Launch((0, 22, 0), device_name=H100), image).max_num_batched_tokens == 10_000


def test_what_the_launch_says_is_kept() -> None:
    launch = Launch((0, 19, 0), max_num_seqs=3, max_num_batched_tokens=4096, block_size=32, device_name=H100)
    chosen = engine_defaults(launch, Facts())
    assert (chosen.max_num_seqs, chosen.max_num_batched_tokens, chosen.block_size) == (3, 4096, 32)
    capped = engine_defaults(Launch((0, 19, 0), max_num_batched_tokens=100, device_name=H100), Facts())
    assert capped.max_num_seqs == 100


@pytest.mark.parametrize(
    ("launch", "count", "largest"),
    [
        (Launch((0, 2, 7), v0=True, max_num_seqs=8), 35, 256),
        (Launch((0, 5, 4), v0=True), 35, 256),
        (Launch((0, 5, 4), v0=True, max_num_seqs=500), 35, 256),
        (Launch((0, 6, 5), v0=True, max_num_seqs=500), 66, 504),
        (Launch((0, 9, 2), max_num_seqs=4), 67, 512),
        (Launch((0, 10, 0), max_num_seqs=4), 4, 8),
        (Launch((0, 11, 0), device_name=H100), 67, 512),
        (Launch((0, 19, 0), device_name=H100), 51, 512),
        (Launch((0, 19, 0), device_name=H100, enforce_eager=True), 0, 0),
        (Launch((0, 19, 0), device_name=H100, max_num_batched_tokens=300), 37, 288),
        (Launch((0, 20, 1), device_name=H100, max_num_batched_tokens=300), 38, 300),
        (Launch((0, 27, 1), device_name="B200"), 51, 512),
        (Launch((0, 28, 0), device_name="B200"), 83, 1024),
        (Launch((0, 30, 0), device_name=H100, max_num_seqs=100), 28, 200),
        (Launch((0, 31, 0), device_name=H100, max_num_seqs=100), 29, 200),
        (Launch((0, 28, 0), device_name=H100, max_num_seqs=8, speculative_tokens=2), 9, 48),
        (Launch((0, 29, 0), device_name=H100, max_num_seqs=8, speculative_tokens=2), 12, 48),
        (Launch((0, 32, 0), platform=Platform.CPU), 0, 0),
    ],
)
def test_captures(launch: Launch, count: int, largest: int) -> None:
    chosen = engine_defaults(launch, Facts())
    assert (len(chosen.capture_sizes), chosen.largest_capture) == (count, largest)
    assert list(chosen.capture_sizes) == sorted(set(chosen.capture_sizes))


def test_full_graphs_are_captured_for_decoding_steps() -> None:
    assert engine_defaults(Launch((0, 10, 2), device_name=H100), Facts()).full_graphs == 0
    assert engine_defaults(Launch((0, 19, 0), device_name=H100), Facts()).full_graphs == 51
    assert engine_defaults(Launch((0, 19, 0), device_name="L4"), Facts()).full_graphs == 35
    assert engine_defaults(Launch((0, 19, 0), device_name="L4"), Facts(pooling=True)).full_graphs == 0


def test_how_the_books_are_kept() -> None:
    def of(version: Version, **facts: bool) -> tuple[float, bool, Printed, Books]:
        chosen = engine_defaults(Launch(version, device_name=H100), Facts(**facts))
        return (
            chosen.gpu_memory_utilization,
            chosen.graphs_subtracted,
            chosen.printed,
            chosen.books,
        )

    assert of((0, 9, 0)) == (0.9, False, Printed.BLOCKS, Books.SPLIT)
    assert of((0, 19, 1)) == (0.9, False, Printed.BLOCKS, Books.SPLIT_AFTER_NCCL)
    assert of((0, 20, 0)) == (0.92, True, Printed.BLOCKS, Books.SPLIT_AFTER_NCCL)
    assert of((0, 20, 1)) == (0.92, True, Printed.CONCURRENCY, Books.SPLIT_AFTER_NCCL)
    assert of((0, 27, 0), experts=True) == (0.92, True, Printed.CONCURRENCY, Books.CONSUMED)
    # The second runner estimated no graphs until 0.29.
    assert of((0, 27, 0))[1] is False
    assert of((0, 29, 0))[1] is True
    old = engine_defaults(Launch((0, 6, 3), v0=True, device_name=H100), Facts())
    assert (old.books, old.graphs_subtracted) == (Books.TORCH_PEAK, False)
    eager = engine_defaults(Launch((0, 20, 0), device_name=H100, enforce_eager=True), Facts())
    assert not eager.graphs_subtracted


def test_which_runner() -> None:
    qwen, llama = Facts(architecture="Qwen3ForCausalLM"), Facts(architecture="LlamaForCausalLM")
    gemma, mixtral = Facts(architecture="Gemma2ForCausalLM"), Facts(architecture="MixtralForCausalLM", experts=True)
    seen = {
        version: [engine_defaults(Launch((0, version, 0)), each).runner2 for each in (qwen, llama, gemma, mixtral)]
        for version in (21, 22, 23, 25, 29)
    }
    assert seen == {
        21: [False, False, False, False],
        22: [True, False, False, False],
        23: [True, True, False, False],
        25: [True, True, True, False],
        29: [True, True, True, True],
    }
    asked = Launch((0, 30, 0), model_runner_v2=False)
    assert not engine_defaults(asked, qwen).runner2


def test_which_sampler() -> None:
    on = card(H100)
    assert [sampler_path((0, minor, 0), 1024, on) for minor in (7, 8, 16, 17, 21)] == [
        SamplerPath.LOGITS,
        SamplerPath.SORT,
        SamplerPath.SORT,
        SamplerPath.TRITON,
        SamplerPath.FLASHINFER,
    ]
    assert sampler_path((0, 19, 0), 7, on) is SamplerPath.SORT
    assert sampler_path((0, 21, 0), 1024, card("V100")) is SamplerPath.TRITON
    assert sampler_path((0, 25, 0), 1024, on, runner2=True) is SamplerPath.COPY
    assert sampler_path((0, 30, 0), 1024, on, runner2=True) is SamplerPath.LOGITS
    assert engine_defaults(Launch(device_name=H100), Facts(pooling=True)).sampler is SamplerPath.NONE


@pytest.mark.parametrize(
    ("version", "name", "seqs", "tokens", "vocabulary", "hidden", "printed"),
    [
        ((0, 10, 2), "NVIDIA L4", 224, 2048, 151936, 4096, 1.23),
        ((0, 10, 2), "L40S", 256, 2048, 151936, 4096, 1.40),
        ((0, 10, 2), "A100 80GB", 256, 2048, 32000, 4096, 0.32),
        ((0, 11, 0), H100, 1024, 8192, 151936, 1024, 5.56),
        ((0, 11, 0), H100, 1024, 8192, 151936, 5120, 5.64),
        ((0, 11, 0), H100, 1024, 8192, 201088, 2880, 7.38),
        ((0, 19, 0), H100, 1024, 8192, 152064, 3584, 2.21),
        ((0, 19, 0), H100, 1024, 8192, 128256, 8192, 1.965),
        ((0, 19, 0), H100, 1024, 8192, 256000, 3072, 3.63),
        ((0, 19, 0), H100, 1024, 8192, 49216, 2048, 0.75),
        ((0, 19, 0), H100, 1024, 8192, 201088, 2880, 2.87),
    ],
)
def test_the_peak_that_real_engines_printed(
    version: Version, name: str, seqs: int, tokens: int, vocabulary: int, hidden: int, printed: float
) -> None:
    on = card(name)
    path = sampler_path(version, seqs, on)
    logits = sampler_peak_bytes(path, version, seqs, vocabulary, 2, on.multiprocessors or 0)
    peak = logits + sampling_hidden_rows(version, seqs, tokens) * hidden * 2 + matrix_workspace_bytes(on)
    assert peak / GiB == pytest.approx(printed, abs=0.0075)


def test_fewer_rows_take_less_and_single_precision_needs_no_copy() -> None:
    path = SamplerPath.SORT
    assert sampler_peak_bytes(path, (0, 11, 0), 128, 1000, 2) == 128_000 * 38
    assert sampler_peak_bytes(path, (0, 11, 0), 127, 1000, 2) == 127_000 * 50
    assert sampler_peak_bytes(path, (0, 11, 0), 128, 1000, 4) == 128_000 * 36
    assert sampler_peak_bytes(SamplerPath.TRITON, (0, 19, 0), 9, 1000, 2, 132) == 9_000 * 14 + 16_000 * 4
    assert sampler_peak_bytes(SamplerPath.NONE, (0, 6, 4), 9, 1000, 2) == 0
    assert sampler_peak_bytes(SamplerPath.FLASHINFER, (0, 11, 0), 9, 1000, 2) == 9_000 * 14


def test_every_choice_says_where_it_was_read() -> None:
    for minor in range(2, 33):
        chosen = engine_defaults(Launch((0, minor, 0), v0=minor < 8, device_name=H100), Facts())
        assert all(source[:2] == "0." for source in chosen.sources), chosen.sources
