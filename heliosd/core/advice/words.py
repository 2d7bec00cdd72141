"""Figures as evidence shows them."""

import math


def span(hours: float) -> str:
    """`6 hours`, `12 days`."""
    return f"{hours:.0f} hours" if hours < 48 else f"{hours / 24:.0f} days"


def count(number: int, one: str, several: str = "") -> str:
    """`1 replica`, `3 replicas`."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def power_of_two(number: float) -> int:
    """The smallest that is not below it."""
    return 1 << max(0, math.ceil(number) - 1).bit_length()


def model_key(model: str, key: str) -> str:
    """The dotted key of a model's setting, as TOML writes it."""
    return f'models."{model}".{key}'
