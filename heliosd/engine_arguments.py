"""What is set for an engine that changes its overhead, as one text: measurements are kept under it.

What Helios chose itself so that a model fits is part of it, and is read from here again when the engine starts: it
starts with what was booked, whatever the configuration says by then.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from heliosd.config import ModelSettings
from heliosd.estimation.capture_choice import CAPTURES, THEIRS
from heliosd.estimation.chosen_limits import STEP
from heliosd.estimation.launch import Launch


def arguments_of(
    settings: ModelSettings, max_num_seqs: int, step_tokens: int | None = None, captures: Sequence[int] = ()
) -> str:
    """`step_tokens`: the most tokens of a step, `captures`: the batch sizes captured, where Helios chose them."""
    engine_args = json.dumps(dict(settings.engine_args), sort_keys=True, default=str).encode()
    said: dict[str, Any] = {
        "dtype": settings.dtype,
        "engine_args": hashlib.sha256(engine_args).hexdigest()[:16],
        "max_num_seqs": max_num_seqs,
        "tensor_parallel": settings.tensor_parallel,
    }
    if settings.pipeline_parallel is not None and settings.pipeline_parallel > 1:
        said["pipeline_parallel"] = settings.pipeline_parallel
    if step_tokens is not None:
        said[STEP] = step_tokens
    if captures:
        said[CAPTURES] = list(captures)
    return json.dumps(said, separators=(",", ":"))


def chosen_step(launch: Launch | None, engine_args: Mapping[str, Any]) -> int | None:
    """The most tokens of a step, where they are neither the operator's nor the engine's choice."""
    given = {name.replace("-", "_") for name in engine_args}
    return None if launch is None or STEP in given else launch.max_num_batched_tokens


def chosen_captures(launch: Launch | None, engine_args: Mapping[str, Any]) -> tuple[int, ...]:
    """The batch sizes captured, where they are neither the operator's nor the engine's choice."""
    return () if launch is None or THEIRS & {name.replace("-", "_") for name in engine_args} else launch.capture_sizes


def chosen_args(arguments: str) -> dict[str, Any]:
    """What of `arguments` Helios chose and the engine must be told."""
    said = json.loads(arguments) if arguments else {}
    return {name: said[name] for name in (STEP, CAPTURES) if name in said}
