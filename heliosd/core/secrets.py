"""What the daemon's children must not inherit: engines and converters may run code that came with a model."""

from collections.abc import Mapping

_TOKENS = frozenset({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN", "HUGGINGFACE_TOKEN"})
_OURS = "HELIOS_"
"""All of these: HELIOS_CLUSTER, say, may hold a whole section with its key. No child reads any."""


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without the hub's tokens and the daemon's own settings."""
    return {name: text for name, text in environ.items() if name not in _TOKENS and not name.startswith(_OURS)}
