"""An estimate as a person reads it: a bar for each device, a table of its terms, the facts, and what would help."""

import textwrap
from collections.abc import Iterator

from heliosctl.bars import Part, bar
from heliosctl.figures import PARTS, against
from heliosctl.output import Column, pairs, table
from heliosd.core.units import format_bytes
from heliosd.wire import (
    AccountView,
    AccuracyView,
    EstimateView,
    FootprintView,
    OverflowView,
    RecommendationView,
    SizingView,
    TrainingView,
)

_NAMES = {"kv_cache": "KV cache", "non_torch": "non-torch"}
_MOST_OPTIONS = 12
_LINE = 80


def words(
    view: EstimateView, measured: FootprintView | None, *, stored: bool, why: bool, wide: bool, plain: bool
) -> str:
    """Everything about one estimate. `stored`: of a model here, whose footprint stands beside what was measured."""
    blocks = [_title(view)]
    if stored or not view.accounts:
        blocks.append(_footprint(view, measured))
    blocks += [_drawing(view, account, plain=plain) for account in view.accounts]
    blocks += _tables(view, why=why, wide=wide)
    blocks.append(_wrapped(pairs(_facts(view))))
    if view.changes:
        lines = [f"{change.kind}: {change.sentence}" for change in view.changes]
        blocks.append("what would help, the cheapest kind first:\n" + "\n".join(map(_item, lines)))
    if view.recommendation is not None:
        blocks.append(recommended(view.recommendation, wide=wide))
    return "\n\n".join(blocks)


def accuracy_words(view: AccuracyView) -> str:
    """Predicted against measured, by term."""
    columns = [Column("TERM"), *(Column(name, right=True) for name in ("STARTS", "MEDIAN", "P90", "WORST", "UNDER"))]
    rows = [
        (
            _NAMES.get(term.name, term.name),
            str(term.starts),
            *(f"{ratio:.2%}" for ratio in (term.median, term.p90, term.worst, term.under_share)),
        )
        for term in view.terms
    ]
    return table(columns, rows)


def recommended(view: RecommendationView, *, wide: bool) -> str:
    """Cards that serve the wish, cheapest first, and why the others do not."""
    columns = [
        Column("CARDS"),
        Column("SPLIT"),
        Column("WEIGHTS"),
        Column("CONTEXT", right=True),
        Column("AT ONCE", right=True),
        Column("USD/H", right=True),
    ]
    shown = view.options if wide else view.options[:_MOST_OPTIONS]
    rows = [
        (
            f"{option.devices} x {option.gpu}",
            option.parallel,
            option.precision,
            f"{option.longest_context:,}",
            f"{option.most_concurrency:,}",
            f"{option.usd_per_hour:.2f}",
        )
        for option in shown
    ]
    text = table(columns, rows) if rows else "nothing in the catalogue serves it"
    if len(shown) < len(view.options):
        text += f"\n{len(view.options) - len(shown)} more with -o wide"
    misses = view.misses if wide else view.misses[: 0 if rows else 3]
    return "\n\n".join([text, *(["does not fit:\n" + "\n".join(map(_item, misses))] if misses else [])])


def _title(view: EstimateView) -> str:
    about = [view.architecture, _count(view.parameters), view.quantization if view.quantization != "none" else None]
    known = ", ".join(part for part in about if part and part != view.model)
    return f"{view.model} ({known})" if known else view.model


def _footprint(view: EstimateView, measured: FootprintView | None) -> str:
    columns = [Column("PER DEVICE"), Column("PREDICTED", right=True)]
    rows = [[name, format_bytes(getattr(view.per_device, field))] for name, field in PARTS]
    if measured is not None:
        columns += [Column("MEASURED", right=True), Column("DIFFERENCE", right=True)]
        for row, (_, field) in zip(rows, PARTS, strict=True):
            row.extend(against(getattr(view.per_device, field), getattr(measured, field)))
    return table(columns, rows)


def _drawing(view: EstimateView, account: AccountView, *, plain: bool) -> str:
    parts = [Part(_NAMES.get(term.name, term.name), term.likely_bytes) for term in account.terms]
    margin = account.booked_bytes - account.total_bytes
    head = f"{_stage(view, account)}: {format_bytes(account.booked_bytes)}"
    if account.device_bytes is None:
        return f"{head}\n{bar(parts, margin, account.booked_bytes, plain=plain)}"
    head += f" of {format_bytes(account.device_bytes)}"
    return f"{head}\n{bar(parts, margin, account.device_bytes, plain=plain)}"


def _stage(view: EstimateView, account: AccountView) -> str:
    stage = f"stage {account.stage}, " if len(view.accounts) > 1 else ""
    device = view.device or ("device" if account.devices > 1 else "one device")
    return f"{stage}{account.devices} x {device}, each" if account.devices > 1 else f"{stage}{device}"


def _tables(view: EstimateView, *, why: bool, wide: bool) -> Iterator[str]:
    """Of the neediest stage; of all when everything is wanted."""
    if not view.accounts:
        return
    neediest = max(view.accounts, key=lambda account: account.booked_bytes)
    columns = [Column("TERM"), *(Column(name, right=True) for name in ("LIKELY", "LOW", "HIGH"))]
    for account in view.accounts if why or wide else [neediest]:
        rows = [
            (_NAMES.get(term.name, term.name), *map(format_bytes, (term.likely_bytes, term.low_bytes, term.high_bytes)))
            for term in account.terms
        ]
        rows.append(("together", format_bytes(account.total_bytes), "", format_bytes(account.booked_bytes)))
        text = table(columns, rows)
        if len(view.accounts) > 1:
            text = f"stage {account.stage}{', which needs most' if account is neediest else ''}\n{text}"
        if why:
            reasons = [f"{_NAMES.get(term.name, term.name)}: {term.why}" for term in account.terms]
            text += "\n\n" + "\n".join(map(_item, reasons))
        yield text


def _facts(view: EstimateView) -> Iterator[tuple[str, str]]:
    devices = f"{view.device_count} x {view.device}" if view.device else str(view.device_count)
    yield "devices", devices + (f" in {view.pipeline_parallel} pipeline stages" if view.pipeline_parallel > 1 else "")
    if view.training is not None:
        yield from _training(view.training)
    else:
        longest = f", alone up to {view.longest_context:,}" if view.longest_context else ""
        yield "context", f"{view.max_model_len} tokens{longest}"
        yield "KV cache", f"{view.kv_tokens} tokens of {format_bytes(view.kv_bytes_per_token)}"
        if view.concurrency is not None:
            yield "at once", f"{view.concurrency:g} requests of {view.max_model_len} tokens"
    if view.engine_version:
        yield "engine", f"vLLM {view.engine_version}{f', {view.max_num_seqs} sequences' if view.max_num_seqs else ''}"
    if view.sizing is not None:
        yield "would fit", _sizing(view.sizing)
    if view.overflow is not None:
        yield "load", _overflow(view.overflow)
    yield "verdict", f"{view.verdict.replace('_', ' ')}: {view.reason}"
    for note in view.notes:
        yield "note", note


def _training(view: TrainingView) -> Iterator[tuple[str, str]]:
    yield "trained", f"{_count(view.trained_parameters)} parameters"
    yield "most held", f"{view.moment}: {format_bytes(view.total_bytes)}, at most {format_bytes(view.high_bytes)}"
    if view.host_bytes:
        yield "on the host", format_bytes(view.host_bytes)
    for assumed in dict.fromkeys(view.assumed):
        yield "assumed", assumed


def _sizing(view: SizingView) -> str:
    limits = (
        (view.max_num_seqs, "sequences at once"),
        (view.max_num_batched_tokens, "tokens a step"),
        (view.max_model_len, "tokens of context"),
    )
    return ", or ".join(f"up to {most:,} {what}" if most else f"no {what} at all" for most, what in limits)


def _overflow(view: OverflowView) -> str:
    if view.queue_grows:
        return f"more requests come than the sequences allow; {view.fitting_rate:g}/s would fit the KV cache"
    full = (
        "never full but by chance" if view.seconds_until_full is None else f"full after {view.seconds_until_full:g} s"
    )
    return (
        f"{view.sequences:g} sequences hold {view.tokens:,.0f} of {view.capacity_tokens:,} tokens: {full}, preempting "
        f"{view.full_share:.1%} of the time; up to {view.fitting_rate:g}/s fit"
    )


def _wrapped(facts: str) -> str:
    """Long values go on below their beginning."""
    start = " " * (facts.index("   ") if "   " in facts else 0)
    return "\n".join(
        textwrap.fill(line, _LINE, subsequent_indent=start + "   ", break_on_hyphens=False, break_long_words=False)
        for line in facts.splitlines()
    )


def _item(text: str) -> str:
    return textwrap.fill(text, _LINE, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)


def _count(number: int | None) -> str:
    """135M, 7.2B: parameters are counted in thousands, not in 1024s."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number is not None and number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number) if number is not None else ""
