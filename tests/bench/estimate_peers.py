"""What `hf-mem` and `accelerate estimate-memory` say of the models whose real memory is known, in a process of its own.

    python -m tests.bench.estimate_peers FILE

Both ask the hub, whose address hf-mem has built in, so both get theirs from memory here, and their times are without a
network, in their favour. hf-mem's own client is given a transport that answers: the listing, the configuration, and the
header of one safetensors file, written from the layout that Helios derives, as the published files are out of reach.
accelerate reads the configuration from a folder; only its question whether the hub knows the model is answered for it.

Neither knows of ranks: weights are compared on rows of one device, and of hf-mem's KV cache every rank is given its
part. accelerate gives sizes in four formats; the one nearest to the checkpoint's is taken.
"""

import asyncio
import json
import logging
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

from heliosd.errors import HeliosError
from heliosd.estimation.account import account, widest
from heliosd.estimation.cache import cache_of
from heliosd.estimation.layout import Layout, Tensor
from heliosd.estimation.model import Model, read_model
from heliosd.estimation.resolve import resolve
from tests.bench.report import percentile
from tests.bench.truth_rows import DIRECTORY, Row, read_rows

LIMIT_S = 240
"""For one peer; what is left is told."""


@dataclass(slots=True)
class Errors:
    """Relative errors of the peer and of Helios on the same rows."""

    peer: list[float] = field(default_factory=list)
    helios: list[float] = field(default_factory=list)

    def add(self, peer: float, helios: float, measured: float) -> None:
        self.peer.append(abs(peer - measured) / measured)
        self.helios.append(abs(helios - measured) / measured)

    def figures(self) -> dict[str, Any]:
        return {
            "rows": len(self.peer),
            "peer_median": round(median(self.peer), 5),
            "peer_p90": round(percentile(self.peer, 0.9), 5),
            "helios_median": round(median(self.helios), 5),
            "helios_p90": round(percentile(self.helios, 0.9), 5),
        }


@dataclass(slots=True)
class Tally:
    """Of one peer."""

    errors: dict[str, Errors] = field(default_factory=dict)
    times_ms: list[float] = field(default_factory=list)
    helios_ms: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def add(self, term: str, peer: float, helios: float, measured: float) -> None:
        self.errors.setdefault(term, Errors()).add(peer, helios, measured)

    def figures(self, version: str, import_s: float) -> dict[str, Any]:
        if not self.times_ms:
            return {"reason": f"no model was answered: {dict(self.failures)}"}
        return {
            "version": version,
            "import_s": round(import_s, 2),
            "ms": round(median(self.times_ms), 3),
            "helios_ms": round(median(self.helios_ms), 3),
            "models": len(self.times_ms),
            "failed": sum(self.failures.values()),
            "reasons": [f"{count} models: {reason}" for reason, count in self.failures.most_common(6)],
            "errors": {term: errors.figures() for term, errors in self.errors.items()},
        }


def models(rows: Sequence[Row]) -> Iterator[tuple[list[Row], Model]]:
    """Rows of each distinct checkpoint that Helios knows, with what it read."""
    of: dict[str, list[Row]] = {}
    for row in rows:
        if row.config:
            of.setdefault(f"{row.model} {row.launch.quantization}", []).append(row)
    for same in of.values():
        try:
            model = read_model(same[0].config, same[0].launch.quantization)
        except HeliosError:
            continue
        if model.layout is not None:
            yield same, model


def ours_ms(config: Mapping[str, Any], row: Row) -> float:
    began = time.perf_counter()
    model = read_model(config)
    resolved = resolve(model, row.launch)
    account(model, row.launch, resolved=resolved)
    cache_of(model, row.launch, resolved)
    return (time.perf_counter() - began) * 1000


def run_all(
    rows: Sequence[Row], ask: Callable[[Row, Model], Any], compare: Callable[[Tally, Row, Model, Any], None]
) -> Tally:
    """Ask a peer about each model once, and compare on all of its rows."""
    tally, began = Tally(), time.monotonic()
    for same, model in models(rows):
        if time.monotonic() - began > LIMIT_S:
            tally.failures["not asked for want of time"] += 1
            continue
        asked = time.perf_counter()
        try:
            answer = ask(same[0], model)
        except Exception as error:  # whatever it raises, it has no answer
            tally.failures[f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:110]] += 1
            continue
        tally.times_ms.append((time.perf_counter() - asked) * 1000)
        tally.helios_ms.append(ours_ms(json.loads(json.dumps(same[0].config)), same[0]))
        for row in same:
            compare(tally, row, model, answer)
    return tally


def one_device(row: Row) -> bool:
    launch = row.launch
    return launch.world_size == 1 and launch.data_parallel == 1


def our_weights(row: Row, model: Model) -> int:
    return widest(account(model, row.launch)).weights.likely_bytes


# accelerate


def accelerate_sizes(row: Row, folder: Path) -> dict[str, float]:
    """Bytes by format, by the function behind `accelerate estimate-memory`."""
    from accelerate.commands.estimate import gather_data

    (folder / "config.json").write_text(json.dumps(row.config), encoding="utf-8")
    formats = ["float32", "float16", "int8", "int4"]
    given = Namespace(model_name=str(folder), library_name="transformers", trust_remote_code=False, dtypes=formats)
    return {name: total for name, _, total, _ in gather_data(given)}


@dataclass(frozen=True, slots=True)
class Namespace:
    """The arguments of its command."""

    model_name: str
    library_name: str
    trust_remote_code: bool
    dtypes: list[str]


@dataclass(frozen=True, slots=True)
class _OnTheHub:
    """What the hub would say of a model: that it is there."""

    config: dict[str, Any]
    library_name: str = "transformers"


def accelerate(rows: Sequence[Row]) -> dict[str, Any]:
    began = time.perf_counter()
    import accelerate as package
    import torch
    from accelerate.commands import estimate

    import_s = time.perf_counter() - began
    torch.set_num_threads(1)
    estimate.verify_on_hub = lambda *_: _OnTheHub({})

    def ask(folder: Path, row: Row, model: Model) -> float:
        sizes = accelerate_sizes(row, folder)
        scheme = model.quantization.linear or model.quantization.experts
        return sizes["float16" if scheme is None else "int8" if scheme.bits > 4 else "int4"]

    def compare(tally: Tally, row: Row, model: Model, answer: float) -> None:
        if row.measured.weights_bytes and one_device(row):
            tally.add("weights", answer, our_weights(row, model), row.measured.weights_bytes)

    with tempfile.TemporaryDirectory() as folder:
        tally = run_all([row for row in rows if one_device(row)], partial(ask, Path(folder)), compare)
    return tally.figures(package.__version__, import_s)


# hf-mem


def file_header(layout: Layout, model: Model) -> bytes:
    """The beginning of a safetensors file with all tensors of a checkpoint; packed ones as the bytes they take."""
    found: dict[str, Any] = {}

    def put(tensor: Tensor, layers: tuple[int, ...], *, tower: bool = False) -> None:
        layer_schemes = [
            scheme for scheme, count in model.quantization.scheme_of(tensor, layers, tower=tower) for _ in range(count)
        ]
        for at, scheme in enumerate(layer_schemes):
            name = tensor.name.replace("{}", str(layers[at]) if layers else "0")
            if scheme is None:
                entry = {"dtype": "BF16", "shape": [tensor.rows, tensor.columns]}
            elif scheme.name.startswith("fp8"):
                entry = {"dtype": "F8_E4M3", "shape": [tensor.rows, tensor.columns]}
            else:
                entry = {"dtype": "U8", "shape": [scheme.size_bytes(tensor.rows, tensor.columns)]}
            for copy in range(tensor.copies):
                found[name.replace("experts.0.", f"experts.{copy}.") if tensor.copies > 1 else f"{name}"] = entry
                if tensor.copies > 1 and "experts.0." not in name:
                    found[f"{name}.{copy}"] = entry

    for tensor in (*layout.first, *layout.last):
        put(tensor, ())
    for tensor in layout.towers:
        put(tensor, (), tower=True)
    for block in layout.blocks:
        for tensor in block.tensors:
            put(tensor, block.layers)
    text = json.dumps(found).encode()
    return struct.pack("<Q", len(text)) + text


def hf_mem(rows: Sequence[Row]) -> dict[str, Any]:
    began = time.perf_counter()
    import hf_mem as package
    import httpx2

    run = import_module("hf_mem.run")  # the package hides it behind a function of that name
    import_s = time.perf_counter() - began
    files: dict[str, bytes] = {}

    def answer(request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        if "/tree/" in path:
            return httpx2.Response(200, json=[{"path": name, "type": "file"} for name in files])
        content = files[path.rpartition("/")[2]]
        asked = request.headers.get("Range")
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            return httpx2.Response(206, content=content[int(first) : int(last) + 1])
        return httpx2.Response(200, content=content)

    client = httpx2.AsyncClient
    setattr(run.httpx2, "AsyncClient", lambda **_: client(transport=httpx2.MockTransport(answer)))  # noqa: B010

    def ask(row: Row, model: Model) -> tuple[int, float | None]:
        """(bytes of weights, bytes of KV cache for a token)."""
        length = resolve(model, row.launch).model_len
        dtype = row.launch.kv_cache_dtype
        result = asyncio.run(
            run.arun("bench/model", experimental=True, max_model_len=length, kv_cache_dtype=dtype, batch_size=1)
        )
        kv = result.kv_cache
        return int(result.memory), (kv / length if isinstance(kv, int) else None)

    def prepared(row: Row, model: Model) -> tuple[int, float | None]:
        return ask(row, model)

    def compare(tally: Tally, row: Row, model: Model, found: tuple[int, float | None]) -> None:
        weights, per_token = found
        here = row.measured
        if here.weights_bytes and one_device(row):
            tally.add("weights", weights, our_weights(row, model), here.weights_bytes)
        if here.kv_bytes and here.kv_bytes > 0 and here.kv_tokens and per_token:
            ours = cache_of(model, row.launch, resolve(model, row.launch)).tokens_in(here.kv_bytes)
            tally.add("kv_tokens", here.kv_bytes * row.launch.world_size / per_token, ours, here.kv_tokens)

    tally, started = Tally(), time.monotonic()
    for same, model in models(rows):
        assert model.layout is not None
        files.clear()
        files["config.json"] = json.dumps(same[0].config).encode()
        files["model.safetensors"] = file_header(model.layout, model)
        for dtype in sorted({row.launch.kv_cache_dtype for row in same}):
            part = [row for row in same if row.launch.kv_cache_dtype == dtype]
            if time.monotonic() - started > LIMIT_S:
                tally.failures["not asked for want of time"] += 1
                continue
            one = run_all(part, prepared, compare)
            tally.times_ms += one.times_ms
            tally.helios_ms += one.helios_ms
            tally.failures.update(one.failures)
            for term, errors in one.errors.items():
                kept = tally.errors.setdefault(term, Errors())
                kept.peer += errors.peer
                kept.helios += errors.helios
    return tally.figures(package.__version__, import_s)


def main() -> int:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    rows = read_rows(DIRECTORY)
    found: dict[str, Any] = {}
    for name, measure in (("hf-mem", hf_mem), ("accelerate", accelerate)):
        try:
            found[name] = measure(rows)
        except ImportError as error:
            found[name] = {"reason": f"is not installed: {error}"}
    Path(sys.argv[1]).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
