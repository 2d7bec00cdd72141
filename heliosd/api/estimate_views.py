"""Accounts, plans and advice of the estimator as they cross the wire. Pure."""

import math
from collections.abc import Iterable, Mapping

from heliosd.estimation.account import DeviceAccount
from heliosd.estimation.accuracy import Accuracy
from heliosd.estimation.kv_overflow import Overflow
from heliosd.estimation.model import Model
from heliosd.estimation.nearest import Change
from heliosd.estimation.recommend import Recommendation
from heliosd.estimation.training import TrainingAccount
from heliosd.wire import (
    AccountView,
    AccuracyView,
    ChangeView,
    OptionView,
    OverflowView,
    RecommendationView,
    TermAccuracyView,
    TermView,
    TrainingView,
)


def architecture_of(model: Model) -> str:
    """As its configuration names it, else its type."""
    names = model.fields.items("architectures")
    return str(names[0]) if names else (model.fields.model_type or "unknown")


def account_view(account: DeviceAccount, stage: int, devices: int, device_bytes: int | None) -> AccountView:
    """`devices`: of the same stage, which hold the same."""
    return AccountView(
        stage=stage,
        devices=devices,
        terms=[
            TermView(
                name=name,
                likely_bytes=term.likely_bytes,
                low_bytes=term.low_bytes,
                high_bytes=term.high_bytes,
                why=term.why,
            )
            for name, term in account.terms
        ],
        total_bytes=account.total_bytes,
        booked_bytes=account.booked_bytes,
        device_bytes=device_bytes,
    )


def training_account_view(account: TrainingAccount, devices: int, device_bytes: int) -> AccountView:
    """The fullest moment by terms; each has the whole account's interval in proportion."""
    total = max(1, account.total_bytes)
    why = {term.name: term.why for term in account.terms}
    return AccountView(
        stage=0,
        devices=devices,
        terms=[
            TermView(
                name=name,
                likely_bytes=n_bytes,
                low_bytes=n_bytes * account.low_bytes // total,
                high_bytes=-(-n_bytes * account.high_bytes // total),
                why=why.get(name, f"at the {account.peak.name}"),
            )
            for name, n_bytes in account.peak.held
        ],
        total_bytes=account.total_bytes,
        booked_bytes=account.high_bytes,
        device_bytes=device_bytes,
    )


def training_view(account: TrainingAccount) -> TrainingView:
    return TrainingView(
        total_bytes=account.total_bytes,
        low_bytes=account.low_bytes,
        high_bytes=account.high_bytes,
        host_bytes=account.host_bytes,
        trained_parameters=account.trained_parameters,
        moment=account.peak.name,
        moments={moment.name: moment.total_bytes for moment in account.moments},
        assumed=list(account.assumed),
    )


def overflow_view(found: Overflow, capacity_tokens: int, replicas: int) -> OverflowView:
    """`found` is of one replica; sequences and rates are told of all together."""
    seconds = found.seconds_until_full
    return OverflowView(
        sequences=round(found.sequences * replicas, 2),
        tokens=round(found.tokens, 1),
        capacity_tokens=capacity_tokens,
        full_share=round(found.full_share, 6),
        seconds_until_full=None if math.isinf(seconds) else round(seconds, 3),
        fitting_rate=round(found.fitting_rate * replicas, 4),
        queue_grows=found.queue_grows,
    )


def change_views(changes: Iterable[Change]) -> list[ChangeView]:
    return [
        ChangeView(
            kind=change.turn,
            sentence=change.sentence,
            gpu=change.offer.gpu.name,
            devices=change.offer.devices,
            usd_per_hour=round(change.offer.usd_per_hour, 3),
            needed_bytes=change.after_bytes,
        )
        for change in changes
    ]


def recommendation_view(found: Recommendation) -> RecommendationView:
    return RecommendationView(
        options=[
            OptionView(
                gpu=option.offer.gpu.name,
                devices=option.offer.devices,
                parallel=str(option.offer.parallel),
                precision=option.offer.precision,
                usd_per_hour=round(option.usd_per_hour, 3),
                longest_context=option.longest_context,
                most_concurrency=option.most_concurrency,
                sentence=option.sentence,
            )
            for option in found.options
        ],
        misses=[miss.sentence for miss in found.misses],
    )


def accuracy_view(found: Mapping[str, Accuracy]) -> AccuracyView:
    return AccuracyView(
        terms=[
            TermAccuracyView(
                name=name,
                starts=each.count,
                median=each.median,
                p90=each.p90,
                worst=each.worst,
                under_share=each.under_share,
            )
            for name, each in found.items()
        ]
    )
