"""What engines compiled, as it is kept for their next starts."""

from pydantic import Field

from heliosd.wire.base import Wire


class WarmupView(Wire):
    key: str = Field(description="what it is kept under; equal facts have equal keys")
    facts: dict[str, str] = Field(description="what it was made for: revision, engine, device, arguments")
    files: int
    size_bytes: int


class WarmupList(Wire):
    warmups: list[WarmupView]
