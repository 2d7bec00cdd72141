"""The few kinds of error Helios raises, named by what the caller can do about them.

A message starts with "cannot", names the thing, shows the arithmetic and says what to do. `code` is stable
and reaches the client; the inner cause stays on `__cause__` and its text in `cause`.
"""


class HeliosError(Exception):
    """Somebody could not keep their word. The base is used only for faults of Helios itself."""

    code = "internal_error"
    status = 500

    def __init__(self, message: str, *, code: str | None = None, cause: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.cause = cause


class BadRequest(HeliosError):
    """The caller must ask differently; `param` names the field that is wrong."""

    code = "bad_request"
    status = 400

    def __init__(
        self, message: str, *, code: str | None = None, cause: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message, code=code, cause=cause)
        self.param = param


class NeedsKey(HeliosError):
    """The caller must say who it is, with a key that is known here."""

    code = "missing_api_key"
    status = 401


class NotAllowed(HeliosError):
    """The caller needs a (different) key, or the operator's permission."""

    code = "not_allowed"
    status = 403


class NotFound(HeliosError):
    """The thing is not here; the message names what is near."""

    code = "not_found"
    status = 404


class Conflict(HeliosError):
    """The thing is in use or already so."""

    code = "conflict"
    status = 409


class CannotFit(HeliosError):
    """No device here could ever hold it; the message has the arithmetic and the nearest fit."""

    code = "model_cannot_fit"
    status = 422


class Unavailable(HeliosError):
    """Not now: the caller may try again after `retry_after_s`; None: nobody can say when."""

    code = "unavailable"
    status = 503

    def __init__(
        self, message: str, *, retry_after_s: float | None = 1.0, code: str | None = None, cause: str | None = None
    ) -> None:
        super().__init__(message, code=code, cause=cause)
        self.retry_after_s = retry_after_s


class OverBudget(HeliosError):
    """The key has used up what it may; the caller may try again after `retry_after_s`."""

    code = "insufficient_quota"
    status = 429

    def __init__(self, message: str, *, retry_after_s: float, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class EngineFailed(HeliosError):
    """An engine died or would not start; `cause` is what it said itself."""

    code = "engine_failed"
    status = 502

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        cause: str | None = None,
        retry_after_s: float | None = None,
        replica: str | None = None,
    ) -> None:
        """`retry_after_s`: when the next start is tried, where that is known. `replica`: the one whose engine ended
        before it was asked anything."""
        super().__init__(message, code=code, cause=cause)
        self.retry_after_s = retry_after_s
        self.replica = replica


class SourceFailed(HeliosError):
    """A hub, peer or folder did not deliver what it promised."""

    code = "source_failed"
    status = 502


class CorruptData(HeliosError):
    """Bytes are not what their name says."""

    code = "corrupt_data"
    status = 502


class ConfigError(HeliosError):
    """The operator must change the configuration."""

    code = "bad_configuration"
