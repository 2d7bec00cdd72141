"""A model of the store by what a request calls it."""

from heliosd.api.asked import ref_of
from heliosd.api.parts import Parts, Stored
from heliosd.errors import NotFound


async def stored_model(parts: Parts, text: str) -> Stored:
    """Raises BadRequest for what is no name, NotFound for what the store does not have."""
    stored = await parts.store.find(ref_of(text))
    if stored is None:
        raise NotFound(
            f"cannot find the model {text}: it is not in the store; `heliosctl ls` lists what is",
            code="model_not_found",
        )
    return stored
