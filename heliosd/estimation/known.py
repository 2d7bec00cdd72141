"""What estimates rest on for one revision: its configuration, read, and the headers of its weight files."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from heliosd.errors import BadRequest
from heliosd.estimation.headers import Header
from heliosd.estimation.model import Model, read_model
from heliosd.estimation.stored_tensors import StoredWeights, stored_weights


@dataclass(frozen=True, slots=True)
class Known:
    """Everything about a revision that does not depend on how it is started."""

    model: Model | None = None
    """None when the configuration cannot be read; `fault` says why."""
    stored: StoredWeights | None = None
    """None for pickles and for a bare configuration."""
    fault: str | None = None


def known_from(config: Mapping[str, Any], headers: Iterable[Header]) -> Known:
    """Put together what a revision's files say. Never raises: a configuration that contradicts itself is a `fault`."""
    stored = stored_weights(headers)
    try:
        return Known(read_model(config), stored if stored.files else None)
    except BadRequest as error:
        return Known(None, stored if stored.files else None, error.message)
