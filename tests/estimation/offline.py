"""Libraries that would ask a hub for what a test does not give them are told that there is none."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch


@contextmanager
def no_hub() -> Iterator[None]:
    """Only within: the tests of the hub itself run in the same process."""
    from huggingface_hub import constants

    with patch.object(constants, "HF_HUB_OFFLINE", True):
        yield
