"""A device is registered only if an installed engine can use it, and what is left out is told."""

import pytest

from heliosd.device_families import families


@pytest.mark.parametrize(
    ("gpus", "host_asked", "cuda", "cpu", "use_gpus", "use_host", "told"),
    [
        (2, False, True, False, True, False, None),
        (0, False, False, True, False, True, None),
        (0, True, False, True, False, True, None),
        (2, False, False, True, False, True, "the GPUs cannot be used"),
        (2, True, True, False, True, False, "host_memory is not used"),
        (0, False, True, False, False, False, "there is no GPU"),
        (0, True, True, False, False, False, "install helios[cpu]"),
        (2, True, False, False, False, False, "no engine is installed: install helios[cuda] or helios[cpu]"),
        (0, False, False, False, False, False, "no engine is installed"),
    ],
)
def test_families(
    gpus: int, host_asked: bool, cuda: bool, cpu: bool, use_gpus: bool, use_host: bool, told: str | None
) -> None:
    chosen = families(gpus=gpus, host_asked=host_asked, cuda=cuda, cpu=cpu)
    assert (chosen.gpus, chosen.host) == (use_gpus, use_host)
    if told is None:
        assert not chosen.warnings
    else:
        (warning,) = chosen.warnings
        assert told in warning
