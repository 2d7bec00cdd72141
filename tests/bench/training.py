"""Predicted beside measured memory of real training steps on the CPU: `python -m tests.bench.training`.

Each configuration is trained for two steps; its peak is that of PyTorch's allocator. `--json FILE` writes
`{count, median, p90, worst}` of |predicted - measured| / measured of the peaks.
"""

import logging
from argparse import ArgumentParser
from pathlib import Path
from statistics import median

from heliosd.core.units import format_bytes
from heliosd.estimation.families.registry import layout_of
from heliosd.estimation.fields import Fields
from heliosd.estimation.training import TrainingAccount, training_account
from tests.bench.report import percentile, write_json
from tests.bench.table import print_table
from tests.estimation.torch_training import Case, Measured, cases, family_cases, measured


def account_of(case: Case) -> TrainingAccount:
    layout = layout_of(case.config)
    assert layout is not None, f"no family knows {case.config['model_type']}"
    return training_account(layout, Fields(case.config), case.plan)


def main() -> None:
    parser = ArgumentParser(description="Memory of training: predicted beside measured.")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the result as one JSON object")
    parser.add_argument("--only", metavar="WORD", default="", help="only configurations with this word in their name")
    given = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    rows, errors = [], []
    for case in (*cases(), *family_cases()):
        if given.only in case.name:
            account, found = account_of(case), measured(case)
            errors.append(abs(account.total_bytes - found.peak) / found.peak)
            rows.append(_row(case, account, found))
    result = {
        "count": len(errors),
        "median": round(median(errors), 5),
        "p90": round(percentile(errors, 0.9), 5),
        "worst": round(max(errors), 5),
    }
    print_table(
        "Training memory on the CPU",
        ("configuration", "standing", "saved", "peak", "predicted", "error"),
        rows,
        (
            "standing: weights, gradients, optimizer states; saved: activations, casts of weights, the loss's part;",
            "both, like the error: (predicted - measured) / measured",
            f"{result['count']} configurations, error of the peak: median {result['median']:.3%}, "
            f"p90 {result['p90']:.3%}, worst {result['worst']:.3%}",
        ),
    )
    write_json(result, given.json)


def _row(case: Case, account: TrainingAccount, found: Measured) -> tuple[str, ...]:
    names = ("weights", "gradients", "optimizer states")
    return (
        case.name,
        _off(sum(account.term_bytes(name) for name in names), found.weights + found.gradients + found.states),
        _off(account.saved_bytes, found.saved),
        format_bytes(found.peak),
        format_bytes(account.total_bytes),
        _off(account.total_bytes, found.peak),
    )


def _off(predicted: int, real: int) -> str:
    return f"{(predicted - real) / real:+.2%}"


if __name__ == "__main__":
    main()
