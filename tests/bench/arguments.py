"""The engine arguments that both servers are given, and the two ways to write them down."""

import json
import os
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path

from heliosd.core.hardware import DeviceKind
from heliosd.core.units import MiB
from heliosd.engines.surroundings import surroundings

NAME = "bench/model"
"""What both servers call the model."""
TWIN = "bench/twin"
"""Another of the same shape."""


@dataclass(frozen=True, slots=True)
class Arguments:
    model: Path
    dtype: str = "auto"
    max_model_len: int = 2048
    max_num_seqs: int = 32
    max_num_batched_tokens: int = 2048
    kv_cache_bytes: int = 256 * MiB
    threads: int | None = None
    """CPU threads of the engine; None: as heliosd chooses."""

    def flags(self) -> list[str]:
        """For `vllm serve`."""
        return [
            str(self.model),
            f"--served-model-name={NAME}",
            f"--dtype={self.dtype}",
            f"--max-model-len={self.max_model_len}",
            f"--max-num-seqs={self.max_num_seqs}",
            f"--max-num-batched-tokens={self.max_num_batched_tokens}",
            f"--kv-cache-memory-bytes={self.kv_cache_bytes}",
            "--enforce-eager",
            "--enable-prefix-caching",
        ]

    def toml(self, *names: str) -> str:
        """For heliosd, as helios.toml; `names` of the models, by default the one."""
        threads = "" if self.threads is None else f"[engines]\nthreads = {self.threads}\n"
        return threads + "".join(map(self._table, names or (NAME,)))

    def _table(self, name: str) -> str:
        return f"""[models.{json.dumps(name)}]
dtype = "{self.dtype}"
max_model_len = {self.max_model_len}
max_num_seqs = {self.max_num_seqs}
kv_cache = {self.kv_cache_bytes}
keep_alive_s = "forever"
[models.{json.dumps(name)}.engine_args]
max_num_batched_tokens = {self.max_num_batched_tokens}
enforce_eager = true
enable_prefix_caching = true
"""

    def environment(self) -> dict[str, str]:
        """Threads, allocator and log level of the engine: what heliosd gives to its engines, also for the peer's."""
        ours = surroundings(DeviceKind.HOST, self.threads, os.environ)
        del ours["HELIOS_ZYGOTE"]
        return ours

    def told(self) -> str:
        """For the table's caption."""
        environment = self.environment()
        return (
            f"both: {self.model.name}, dtype {self.dtype}, max_model_len {self.max_model_len}, "
            f"max_num_seqs {self.max_num_seqs}, max_num_batched_tokens {self.max_num_batched_tokens}, "
            f"KV cache {self.kv_cache_bytes // MiB} MiB, eager, prefix caching, "
            f"{environment['OMP_NUM_THREADS']} OpenMP thread(s) not bound, attention without AMX; "
            f"{len(os.sched_getaffinity(0))} cores for server and client together"
        )


def add_flags(parser: ArgumentParser) -> None:
    """What every benchmark of an engine can be told."""
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the result as one JSON object")
    parser.add_argument("--model", metavar="DIR", type=Path, help="a model instead of SmolLM2-135M-Instruct")
    parser.add_argument("--dtype", default="auto", help="number format of the weights (default: the model's)")
    parser.add_argument("--threads", metavar="N", type=int, help="OpenMP threads of the engines (default: heliosd's)")


def arguments_of(given: Namespace, model: Path) -> Arguments:
    return Arguments(model=model, dtype=given.dtype, threads=given.threads)
