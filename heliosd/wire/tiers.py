"""Tiers of the store, and what moves between them."""

from typing import Literal

from pydantic import Field

from heliosd.wire.base import Asked, Wire


class TierView(Wire):
    tier: str = Field(
        description="host (RAM), nvme (the store), disk (a slower volume); not here any more, but at another node "
        "(peer) or at the hub (hub)"
    )
    budget_bytes: int | None = Field(description="what it may hold now; none: no limit is known")
    used_bytes: int
    models: list[str] = Field(description="that have files there")
    note: str = ""
    bytes_per_s: float | None = Field(None, description="at which a file came from there of late")


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
    tier: Literal["host", "nvme", "disk", "peer", "hub", "auto"] = Field(
        description="auto leaves it to the forecast again; peer and hub let go of it at once, when they have it"
    )
