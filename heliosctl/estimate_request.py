"""What the command line asks of the estimator, as the body of the request. Reads configurations from this machine."""

import json
import struct
from argparse import Namespace
from pathlib import Path
from typing import Any

from heliosctl.exits import Exit, Failure
from heliosd.core.units import MiB, format_bytes

MOST_BYTES = 7 * MiB
"""Of a configuration with its headers; the daemon takes a little more."""
MOST_USD_PER_HOUR = 1e6
_HEADER_LENGTH = 8
_SHARDING = {0: "none", 1: "zero1", 2: "zero2", 3: "zero3"}


def body_of(args: Namespace) -> dict[str, Any]:
    """Only what was said. Raises Failure when a file cannot be read or nothing says which model is meant."""
    fields = _subject(args) | {
        "kv_cache_bytes": args.kv_cache,
        "max_model_len": None if args.train else args.context,
        "max_num_seqs": args.max_num_seqs,
        "quantize": args.quantize,
        "gpu": args.gpu,
        "device_bytes": args.device_memory,
        "tensor_parallel": None if args.train else args.tp,
        "pipeline_parallel": args.pp,
        "data_parallel": None if args.train else args.dp,
        "expert_parallel": args.ep or None,
        "concurrency": args.concurrency,
        "precision": None if args.train else args.precision,
        "kv_cache_dtype": args.kv_dtype,
        "max_num_batched_tokens": args.max_num_batched_tokens,
        "engine_version": args.engine_version,
        "enforce_eager": args.eager or None,
        "train": _train(args) if args.train else None,
        "load": _load(args),
        "speculative_tokens": args.speculative,
        "size": args.size or None,
        "recommend": args.recommend or None,
        "gpus": args.gpus.split(",") if args.gpus else None,
        "prices": dict(map(_price, args.price)) if args.price else None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _subject(args: Namespace) -> dict[str, Any]:
    if args.hub and args.model:
        raise Failure(f"cannot estimate {args.model} and {args.hub} at once: name one", Exit.USAGE)
    if args.hub:
        return {"hub": args.hub, "revision": args.revision}
    if not args.model:
        raise Failure("cannot tell which model is meant: name one, a config.json, a directory or --hub", Exit.USAGE)
    path = local_path(args.model)
    return {"model": args.model} if path is None else read_local(path)


def local_path(text: str) -> Path | None:
    """The path that is meant; None for the name of a model."""
    path = Path(text).expanduser()
    if text.endswith(".json") or text.startswith(("/", "./", "../", "~")) or text in (".", ".."):
        return path
    return path if (path / "config.json").is_file() else None


def read_local(path: Path) -> dict[str, Any]:
    """The configuration in a file or directory and, in a directory, the headers of its weights. Raises Failure."""
    file = path / "config.json" if path.is_dir() else path
    config = _json(file)
    headers = _headers(path, MOST_BYTES - file.stat().st_size) if path.is_dir() else []
    return {"config": config, **({"headers": headers} if headers else {})}


def _json(file: Path) -> Any:
    try:
        size_bytes = file.stat().st_size
        if size_bytes > MOST_BYTES:
            raise Failure(
                f"cannot take {file} for a configuration: it has {format_bytes(size_bytes)}, the limit is "
                f"{format_bytes(MOST_BYTES)}",
                Exit.USAGE,
            )
        return json.loads(file.read_bytes())
    except OSError as error:
        raise Failure(f"cannot read {file}: {(error.strerror or str(error)).lower()}", Exit.USAGE) from error
    except (ValueError, RecursionError) as error:
        raise Failure(f"cannot read {file} as JSON: {str(error)[:100]}", Exit.USAGE) from error


def _headers(directory: Path, room_bytes: int) -> list[dict[str, Any]]:
    """Of all safetensors files; none when they are too long to be sent, or one of them is broken."""
    found: list[dict[str, Any]] = []
    for file in sorted(directory.glob("*.safetensors")):
        try:
            with file.open("rb") as source:
                (length,) = struct.unpack("<Q", source.read(_HEADER_LENGTH))
                room_bytes -= length + length // 4  # quotes are escaped
                if room_bytes < 0:
                    return []
                text = source.read(length).decode()
        except (OSError, ValueError, struct.error):
            return []
        found.append({"size_bytes": file.stat().st_size, "header": text})
    return found


def _price(text: str) -> tuple[str, float]:
    name, _, usd = text.rpartition("=")
    try:
        price = float(usd)
    except ValueError:
        price = -1.0
    if not name or not 0 <= price <= MOST_USD_PER_HOUR:
        raise Failure(f"cannot read {text!r} as a price: write it like H100=1.99", Exit.USAGE)
    return name, price


def _train(args: Namespace) -> dict[str, Any]:
    fields = {
        "method": args.train,
        "optimizer": args.optimizer,
        "precision": args.train_precision,
        "batch_size": args.batch,
        "sequence_length": args.context,
        "rank": args.rank,
        "gradient_checkpointing": args.checkpointing or None,
        "sharding": None if args.zero is None else _SHARDING[args.zero],
        "data_parallel": args.dp,
        "tensor_parallel": args.tp,
        "offload": args.offload,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _load(args: Namespace) -> dict[str, Any] | None:
    said = {"--rate": args.rate, "--prompt": args.prompt, "--output-tokens": args.output_tokens, "--speed": args.speed}
    if all(value is None for value in said.values()):
        return None
    missing = [name for name, value in said.items() if value is None]
    if missing:
        raise Failure(f"cannot tell what the load does to the KV cache without {' and '.join(missing)}", Exit.USAGE)
    return {
        "rate": args.rate,
        "prompt_tokens": args.prompt,
        "output_tokens": args.output_tokens,
        "tokens_per_second": args.speed,
    }
