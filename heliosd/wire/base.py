"""What all bodies have in common, and errors."""

from pydantic import BaseModel, ConfigDict


class Wire(BaseModel):
    """Unknown fields are ignored when reading, so an older client understands a newer daemon."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Asked(BaseModel):
    """The body of a request: an unknown field is an error, because it would otherwise be ignored silently."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ErrorDetail(Wire):
    """OpenAI's error object; `code` is stable, `cause` has the engine's own words."""

    message: str
    type: str
    code: str
    param: str | None = None
    cause: str | None = None


class ErrorBody(Wire):
    error: ErrorDetail
