"""The error for a vLLM that is not as Helios knows it. Raised where something of vLLM's is replaced."""


def changed(what: str) -> RuntimeError:
    """Name the part of vLLM that moved, so that it is found at once and nothing runs slowly or wrongly instead."""
    from vllm import __version__

    return RuntimeError(
        f"cannot use vLLM {__version__}: {what} is not as Helios knows it; install the vLLM that Helios names"
    )
