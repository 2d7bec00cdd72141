"""Which of vLLM's load formats an engine is started with. Pure."""

from collections.abc import Iterable, Mapping, Set

from heliosd.core.storage_speed import Speed

HELIOS = "helios"
AUTO = "auto"
STREAMERS: Mapping[str, str] = {
    "fastsafetensors": "fastsafetensors",
    "instanttensor": "instanttensor",
    "runai_streamer": "runai_model_streamer",
}
"""Load formats that need a package of their own, and the module that it brings."""
CLEARLY = 1.1
"""How much faster than ours a streamer must be: below that the difference is noise."""


def load_format(files: Iterable[str], on_cuda: bool, installed: Set[str], measured: Iterable[Speed]) -> str:
    """The format for a model with these files, when the operator has set none.

    A streamer is chosen only on CUDA, only when its package is installed, and only when it was measured on this storage
    to be clearly faster from the disk than what Helios brings. None of them reads recipes.
    """
    names = list(files)
    if not any(name.endswith((".safetensors", ".safetensors.recipe")) for name in names):
        return AUTO
    if not on_cuda or any(name.endswith(".recipe") for name in names):
        return HELIOS
    cold = {speed.method: speed.cold_bytes_per_s for speed in measured if speed.cold_bytes_per_s is not None}
    usable = [name for name, module in STREAMERS.items() if module in installed and name in cold]
    best = max(usable, key=lambda name: cold[name], default=HELIOS)
    return best if HELIOS in cold and cold.get(best, 0.0) > CLEARLY * cold[HELIOS] else HELIOS
