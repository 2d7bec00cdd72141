"""Predictions for the rows of measured accounts, and how far off each is."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from heliosd.core.units import GiB
from heliosd.errors import HeliosError
from heliosd.estimation.account import DeviceAccount, account, widest
from heliosd.estimation.activations import activation_peak
from heliosd.estimation.cache import cache_of
from heliosd.estimation.constants import Measured, era
from heliosd.estimation.engine_defaults import Books
from heliosd.estimation.model import Model, read_model
from heliosd.estimation.resolve import resolve
from heliosd.estimation.sparse_attention import sparse_workspace
from tests.bench.truth_fit import fit, given_back, samples
from tests.bench.truth_rows import Row

PRINTED_ESTIMATE = 1.3
"""An engine's own estimate of its graphs over what they take: 1.3 in the middle of the few logs that print both."""
HUNDREDTH_BYTES = GiB // 100
"""Logs print hundredths of a GiB: nothing is measured more finely."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One number of one row."""

    row: Row
    term: str
    predicted: int
    measured: int
    reason: str
    """How the prediction came about."""
    booked: int | None = None
    """What a ledger would have set aside, where it is more than the likely value."""

    @property
    def error(self) -> float:
        floor = 1 if self.term == "kv_tokens" else HUNDREDTH_BYTES
        return abs(self.predicted - self.measured) / max(floor, abs(self.measured))

    @property
    def booked_under(self) -> bool:
        """Whether even what is booked lies below the measured value by more than 1 % of the device."""
        return self.measured - (self.booked or self.predicted) > 0.01 * self.row.device_bytes

    @property
    def under(self) -> bool:
        allowed = 0.01 * (self.measured if self.term == "kv_tokens" else self.row.device_bytes)
        missing = self.measured - self.predicted
        return (-missing if self.term == "kv_tokens" else missing) > allowed


def outcomes(rows: Sequence[Row], known: Sequence[Row]) -> list[Outcome]:
    """Every number of `rows`. Constants that were measured on a row's own source are measured again without it, on
    the `known` rows that the shipped ones come from."""
    found: list[Outcome] = []
    told = samples(known)
    sources = {each.source for each in told}
    for row in rows:
        if not any(name in row.config for name in ("num_hidden_layers", "n_layer", "encoder_layers", "text_config")):
            continue  # the table has no configuration for this model
        chosen = era(row.launch.version, v0=row.launch.v0)
        constants = fit(told, row.source)[chosen.name] if row.source in sources else chosen.measured
        try:
            model = read_model(row.config, row.launch.quantization)
            found += _accounts(row, model, constants)
            found += _tokens(row, model)
        except (HeliosError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            # One odd row of somebody's table must not hide the others.
            print(f"{row.id}: cannot be predicted: {error}", file=sys.stderr)
    return found


def _tokens(row: Row, model: Model) -> list[Outcome]:
    """Tokens that the printed bytes of KV cache hold, as the engine of that release prints them."""
    here = row.measured
    if not here.kv_bytes or here.kv_bytes < 0:
        return []
    resolved = resolve(model, row.launch)
    pages = cache_of(model, row.launch, resolved)
    if here.kv_tokens:
        predicted, measured = pages.tokens_in(here.kv_bytes), here.kv_tokens
    elif here.kv_blocks and row.launch.v0:
        predicted, measured = pages.blocks(here.kv_bytes), here.kv_blocks
    else:
        return []
    groups = f"{len(pages.groups)} groups, blocks of {pages.block_tokens} tokens and {pages.block_bytes} bytes"
    return [Outcome(row, "kv_tokens", predicted, measured, groups)]


def _accounts(row: Row, model: Model, constants: Measured) -> list[Outcome]:
    stages = account(model, row.launch, measured=constants)
    here, seen = row.measured, []
    chosen = widest(stages)
    counted, returned = _counted_graphs(row, model, chosen), _given_back(row, model)
    reserved = sparse_workspace(model, resolve(model, row.launch)).built_bytes
    moved = {"weights": reserved, "activation": counted - reserved, "graphs": -returned}
    terms = (
        ("weights", here.weights_bytes, chosen.weights),
        ("activation", here.activation_bytes, chosen.activation),
        ("graphs", here.graphs_bytes, chosen.graphs),
        ("non_torch", here.non_torch_bytes, chosen.non_torch),
    )
    for name, measured, term in terms:
        if measured is not None:
            predicted = term.likely_bytes + moved.get(name, 0)
            seen.append(Outcome(row, name, predicted, measured, term.why))
    if here.weights_bytes and here.activation_bytes and here.non_torch_bytes is not None:
        seen.append(_total(row, chosen, counted - returned))
    return seen


def _counted_graphs(row: Row, model: Model, chosen: DeviceAccount) -> int:
    """Engines that keep their books as consumed memory print their own estimate of graphs within the activation peak;
    it is more than capturing then takes."""
    defaults = resolve(model, row.launch).defaults
    counted = defaults.books is Books.CONSUMED and defaults.graphs_subtracted
    return round(PRINTED_ESTIMATE * chosen.graphs.likely_bytes) if counted else 0


def _given_back(row: Row, model: Model) -> int:
    if row.measured.graphs_bytes is None or not (resolved := resolve(model, row.launch)).defaults.capture_sizes:
        return 0
    layer = activation_peak(model, resolved, era(row.launch.version, v0=row.launch.v0)).layer_bytes
    return given_back(row, layer)


def _total(row: Row, chosen: DeviceAccount, printed: int) -> Outcome:
    """Everything but the KV cache; graphs only where they were printed."""
    here = row.measured
    measured = sum(
        each or 0 for each in (here.weights_bytes, here.activation_bytes, here.non_torch_bytes, here.graphs_bytes)
    )
    predicted = (
        printed
        + chosen.fixed_bytes
        - chosen.context.likely_bytes
        - (chosen.graphs.likely_bytes if here.graphs_bytes is None else 0)
    )
    parts = ", ".join(
        f"{name} {term.likely_bytes / GiB:.2f}" for name, term in chosen.terms if name not in ("kv_cache", "context")
    )
    return Outcome(row, "total", predicted, measured, parts, predicted + chosen.margin_bytes)
