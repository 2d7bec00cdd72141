"""Tiers of the store, and what moves between them."""

from typing import Literal

from pydantic import Field

from heliosd.wire.base import Asked, Wire


class TierView(Wire):
    tier: str = Field(description="host (RAM), nvme (the store) or disk (a slower volume)")
    budget_bytes: int = Field(description="what it may hold now")
    used_bytes: int
    models: list[str] = Field(description="that have files there")
    note: str = ""


class TierWishView(Wire):
    """Where an operator wants a model."""

    model: str
    tier: str | None = Field(description="none: left to the forecast")


class TierList(Wire):
    tiers: list[TierView]
    wishes: list[TierWishView]
    moving: str | None = Field(None, description="what is being moved")


class TierMoveView(Wire):
    models: list[str] = Field(description="that need the files")
    source: str
    target: str
    size_bytes: int
    seconds: float = Field(description="that it is expected to take")
    reason: str


class TierPlanView(Wire):
    moves: list[TierMoveView]
    unmet: list[str] = Field([], description="what cannot be done, and why")


class MoveModel(Asked):
    tier: Literal["host", "nvme", "disk", "auto"] = Field(description="auto leaves it to the forecast again")
