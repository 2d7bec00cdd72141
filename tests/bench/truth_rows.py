"""Rows of measured memory accounts: what an engine was told at its start, and what it printed.

A row is one start on a real GPU. What the log does not say stays None and is taken from the engine's defaults later;
the notes hold facts that have no column (capture sizes, LoRA, expert parallelism), which are read here.
"""

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heliosd.core.units import GiB
from heliosd.estimation.engine_versions import parse_version
from heliosd.estimation.launch import Launch, Platform, Version

DIRECTORY = Path(__file__).resolve().parents[2].parent / "shared" / "data"

UNKNOWN = (0, 26, 0)
"""Taken for a start of V1 whose log does not name the release: most of them serve models of that year."""

UNKNOWN_V0 = (0, 7, 3)
"""The same for the older generation."""

TRAINED_RANK = 32
"""Of adapters in those notebooks: 16, 32 or 64."""

_THREADS: tuple[tuple[int, Version], ...] = (
    (2_000, (0, 2, 5)), (2_400, (0, 2, 7)), (2_700, (0, 3, 0)), (3_300, (0, 3, 3)), (3_750, (0, 4, 0)),
    (4_300, (0, 4, 1)), (4_650, (0, 4, 2)), (5_450, (0, 5, 0)), (6_150, (0, 5, 1)), (6_450, (0, 5, 2)),
    (6_700, (0, 5, 3)), (7_150, (0, 5, 4)), (7_800, (0, 5, 5)), (8_150, (0, 6, 0)), (8_400, (0, 6, 1)),
    (8_800, (0, 6, 2)), (9_350, (0, 6, 3)), (10_350, (0, 6, 4)), (11_250, (0, 6, 5)), (11_550, (0, 6, 6)),
    (12_450, (0, 7, 0)), (12_850, (0, 7, 2)), (13_550, (0, 7, 3)), (15_050, (0, 8, 0)), (15_500, (0, 8, 2)),
    (16_150, (0, 8, 3)), (16_600, (0, 8, 4)), (17_350, (0, 8, 5)), (18_800, (0, 9, 0)), (19_450, (0, 9, 1)),
    (20_550, (0, 9, 2)), (21_500, (0, 10, 0)), (23_150, (0, 10, 1)), (24_800, (0, 10, 2)), (26_150, (0, 11, 0)),
    (28_900, (0, 11, 1)), (29_900, (0, 12, 0)), (31_000, (0, 13, 0)), (32_700, (0, 14, 0)), (33_700, (0, 15, 0)),
    (34_500, (0, 16, 0)), (36_500, (0, 17, 0)), (38_000, (0, 18, 0)), (39_500, (0, 19, 0)), (40_500, (0, 20, 0)),
)  # fmt: skip
"""Where the engine's threads stood when a release came out: tells the release of a log that somebody put into one."""
_THREAD = re.compile(r"vllm-project/vllm(?: PR| )?#(\d+)")
_STYLE = re.compile(r"v\d+\.\d+[\w.]*")

_CAPTURE = re.compile(r"max cudagraph capture(?: size)? (\d+)")
_SIZES = re.compile(r"capture sizes up to (\d+)")
_SPECULATIVE = re.compile(r"(?:MTP|mtp|DSpark|DFlash2?|num_spec_tokens|speculative)\D{0,20}(\d+)")
_IMAGES = re.compile(r"limit_mm image=(\d+)")


@dataclass(frozen=True, slots=True)
class Measured:
    """What the engine printed, of one device; None where the log is silent."""

    weights_bytes: int | None
    activation_bytes: int | None
    graphs_bytes: int | None
    non_torch_bytes: int | None
    kv_bytes: int | None
    kv_tokens: int | None
    kv_blocks: int | None
    block_size: int | None


@dataclass(frozen=True, slots=True)
class Row:
    id: str
    source: str
    model: str
    config: Mapping[str, Any]
    launch: Launch
    version_known: bool
    measured: Measured
    notes: str
    fork: bool
    """Not a release: a vendor's tree, or unified memory that other processes share."""

    @property
    def device_bytes(self) -> int:
        """Of the card; a large one's where the log does not say."""
        return self.launch.device_bytes or 80 * GiB


def read_rows(directory: Path) -> list[Row]:
    """All rows of `truth_*.csv` in `directory`, with the configurations of `truth_configs.json` there."""
    configs: dict[str, Any] = json.loads((directory / "truth_configs.json").read_text(encoding="utf-8"))
    configs = {name: published(directory, name) or told for name, told in configs.items()}
    found = []
    for path in sorted(directory.glob("truth_*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            found += [_row(cells, configs) for cells in csv.DictReader(file)]
    return found


def published(directory: Path, model: str) -> dict[str, Any] | None:
    """The configuration as its authors published it, where it lies in `configs`; the table's are often shortened."""
    for folder in (directory, DIRECTORY):
        path = folder / "configs" / f"{model.replace('/', '__')}.json"
        if path.is_file():
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return found
    return None


def _row(cells: Mapping[str, str], configs: Mapping[str, Any]) -> Row:
    config = configs.get(cells["model"]) or {}
    if "DSpark" in cells["notes"] and config.get("model_type") == "deepseek_v4":
        # The table's configuration is of the release before, which drafts otherwise; three layers are tapped there.
        config = {**config, "dspark_target_layer_ids": [0, 0, 0]}
    named = parse_version(cells["vllm_version"])
    version = named or _told_elsewhere(cells)
    return Row(
        id=cells["id"],
        source=cells["source"],
        model=cells["model"],
        config=config,
        launch=_launch(cells, config, version),
        version_known=named is not None,
        measured=Measured(
            weights_bytes=_bytes(cells["weights_gib_per_gpu"]),
            activation_bytes=_bytes(cells["activation_peak_gib"]),
            graphs_bytes=_bytes(cells["cuda_graph_gib"]),
            non_torch_bytes=_bytes(cells["non_torch_gib"]),
            kv_bytes=_bytes(cells["kv_cache_gib"]),
            kv_tokens=_whole(cells["kv_cache_tokens"]),
            kv_blocks=_whole(cells["num_gpu_blocks"]),
            block_size=_whole(cells["block_size"]),
        ),
        notes=cells["notes"],
        fork="fork" in (cells["vllm_version"] + cells["notes"]).lower() or "GB10" in cells["gpu"],
    )


def _rocm(cells: Mapping[str, str]) -> bool:
    """By the card's name, what the source or the notes say, or the 192 GB that only MI300X has."""
    size = _number(cells["gpu_total_gib"])
    named = any(name in cells["gpu"] for name in ("MI300", "AMD", "Radeon"))
    said = "rocm" in (cells["source"] + cells["notes"]).lower()
    return named or said or (size is not None and 191 < size < 192)


def _told_elsewhere(cells: Mapping[str, str]) -> Version | None:
    """What the notes say of the release (`v0.7.x-style log`), or when the thread that quotes the log was opened."""
    style = _STYLE.search(cells["notes"])
    if style and (named := parse_version(style[0])):
        return named
    thread = _THREAD.search(cells["source"])
    number = int(thread[1]) if thread else 0
    return max((version for since, version in _THREADS if since <= number), default=None)


def _launch(cells: Mapping[str, str], config: Mapping[str, Any], version: Version | None) -> Launch:
    notes, gpu = cells["notes"], cells["gpu"]
    v0 = cells["engine(V0/V1)"] == "V0"
    capture = _CAPTURE.search(notes) or _SIZES.search(notes)
    largest = int(capture[1]) if capture else None
    quantized = "quantization_config" in config
    asked = cells["quantization"] if not quantized and cells["quantization"] not in ("", "none") else None
    speculative = _SPECULATIVE.search(notes)
    images = _IMAGES.search(notes)
    total = cells["gpu_total_gib"]
    # Notebooks that train by reinforcement serve the adapter they train; until 0.7 its room was not counted as weights.
    trained = "GRPO" in cells["source"] and version is not None and version >= (0, 8, 0)
    return Launch(
        version=version or (UNKNOWN_V0 if v0 else UNKNOWN),
        v0=v0,
        platform=Platform.ROCM if _rocm(cells) else Platform.CUDA,
        tensor_parallel=_whole(cells["tp"]) or 1,
        pipeline_parallel=_whole(cells["pp"]) or 1,
        data_parallel=2 if "data_parallel 2" in notes else 1,
        expert_parallel=bool(re.search(r"\bEP ?enabled|\bEP\d|EP layout|expert.parallel", notes)),
        decode_context_parallel=int(found[1]) if (found := re.search(r"DCP ?=? ?(\d+)", notes)) else 1,
        dtype=_dtype(cells["weight_dtype"]),
        quantization=asked,
        kv_cache_dtype=cells["kv_cache_dtype"] or "auto",
        max_model_len=_whole(cells["max_model_len"]),
        max_num_seqs=_whole(cells["max_num_seqs"]) or _sequences(largest, v0, version),
        max_num_batched_tokens=_whole(cells["max_num_batched_tokens"]),
        chunked_prefill={"True": True, "False": False}.get(_after(notes, "chunked_prefill=")),
        enforce_eager=cells["enforce_eager"] == "True" or largest == 0,
        max_capture_size=largest,
        block_size=_whole(cells["block_size"]),
        prefix_caching={"True": True, "False": False}.get(_after(notes, "prefix_caching=")),
        speculative_tokens=int(speculative[1]) if speculative else int("DSpark" in notes),
        max_loras=1 if "LoRA" in notes or trained else 0,
        max_lora_rank=TRAINED_RANK,
        native_sampler="native sampler" in notes,
        pooling=_pooling(cells["model"], config, notes),
        model_runner_v2=_runner2(notes),
        device_name=gpu or _card_of(total, cells),
        device_bytes=_bytes(total),
        language_only="language-model-only" in notes,
        images_per_prompt=int(images[1]) if images else None,
    )


def _sequences(largest: int | None, v0: bool, version: Version | None) -> int | None:
    """Graphs are captured up to the number of sequences (V0), up to twice as many (V1 from 0.10 on, 512 at most)."""
    if not largest:
        return None
    if v0:
        return largest
    return largest // 2 if version is not None and version >= (0, 10, 0) and largest < 512 else None


def _card_of(total: str, cells: Mapping[str, str]) -> str:
    """An unnamed card of 80 GB is an A100 by the size that torch sees, or by the defaults of a small card."""
    size = _number(total)
    if size is None or not 79.0 < size < 79.6:
        return ""
    small = cells["engine(V0/V1)"] == "V1" and cells["max_num_batched_tokens"] == "2048"
    return "A100 80GB" if small or size > 79.21 else "H100 80GB"


def _pooling(model: str, config: Mapping[str, Any], notes: str) -> bool:
    return "no lm_head" in str(config.get("note", "")) + notes or "embedding" in model.lower()


def _runner2(notes: str) -> bool | None:
    if "VLLM_USE_V2_MODEL_RUNNER=0" in notes or "V1 model runner" in notes or "V1 runner" in notes:
        return False
    return True if "V2 model runner" in notes or "V2 runner" in notes else None


def _after(notes: str, name: str) -> str:
    found = re.search(re.escape(name) + r"(\w+)", notes)
    return found[1] if found else ""


def _dtype(cell: str) -> str | None:
    name = cell.removeprefix("torch.").lower()
    known = {"bf16": "bfloat16", "fp16": "float16", "bfloat16": "bfloat16", "float16": "float16", "float32": "float32"}
    return known.get(name)


_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")


def _number(cell: str) -> float | None:
    """The first number in a cell; people write `256 (default)`."""
    found = _NUMBER.search(cell.replace(",", ""))
    return float(found[0]) if found else None


def _bytes(cell: str) -> int | None:
    value = _number(cell)
    return None if value is None else round(value * GiB)


def _whole(cell: str) -> int | None:
    value = _number(cell)
    return None if value is None else int(value)
