"""How heliosctl ends, as numbers scripts may rely on."""

from enum import IntEnum


class Exit(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_FOUND = 4
    NOT_ALLOWED = 5
    CANNOT_FIT = 6
    UNAVAILABLE = 7
    INTERRUPTED = 130


MEANING = {
    Exit.OK: "done",
    Exit.FAILED: "failed; the message says why",
    Exit.USAGE: "the command line makes no sense",
    Exit.UNREACHABLE: "no daemon answers",
    Exit.NOT_FOUND: "advice_not_found alias_not_found base_not_found blob_not_found device_not_found file_not_found "
    "key_not_found model_not_found no_large_file not_found not_recorded not_supported not_traced pin_not_found "
    "replica_not_found repository_not_found response_not_found revision_not_found trace_not_found unknown_path "
    "warmup_not_found",
    Exit.NOT_ALLOWED: "a (different) key or permission is needed",
    Exit.CANNOT_FIT: "no device here could ever hold it",
    Exit.UNAVAILABLE: "not now: draining, full or too slow; try again",
    Exit.INTERRUPTED: "stopped with Ctrl-C",
}

# An error in the middle of a stream has no status of its own, only its code.
_CODES = {
    Exit.CANNOT_FIT: "model_cannot_fit",
    Exit.NOT_FOUND: "advice_not_found alias_not_found base_not_found blob_not_found device_not_found file_not_found "
    "key_not_found model_not_found no_large_file not_drained not_found not_recorded not_supported not_traced "
    "pin_not_found replica_not_found repository_not_found response_not_found revision_not_found trace_not_found "
    "unknown_path "
    "warmup_not_found",
    Exit.USAGE: "idempotency_key_reused",
    Exit.NOT_ALLOWED: "admin_key_needed gated_model host_not_allowed invalid_api_key invalid_peer_token "
    "missing_api_key not_allowed not_shared pickle_refused repository_disabled",
    Exit.UNAVAILABLE: "disk_full draining gpus_unreadable insufficient_quota memory_full overloaded peer_refused "
    "peer_unreachable queue_full queue_timeout starting too_many_transfers unavailable",
}
_BY_CODE = {code: exit_code for exit_code, codes in _CODES.items() for code in codes.split()}
_BY_STATUS = {
    401: Exit.NOT_ALLOWED,
    403: Exit.NOT_ALLOWED,
    404: Exit.NOT_FOUND,
    422: Exit.CANNOT_FIT,
    429: Exit.UNAVAILABLE,
    503: Exit.UNAVAILABLE,
}


class Failure(Exception):
    """A command cannot be carried out: what to tell the person, and the exit code."""

    def __init__(
        self, message: str, exit_code: Exit = Exit.FAILED, *, cause: str | None = None, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.cause = cause
        self.status = status
        """The HTTP status, when the daemon said it."""


def exit_for(code: str | None, status: int | None) -> Exit:
    """What the daemon's error `code`, or else its HTTP status, means as an exit code."""
    return _BY_CODE.get(code or "") or _BY_STATUS.get(status or 0) or Exit.FAILED
