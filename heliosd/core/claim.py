"""What a request claims of the queue, before it is known which model's settings it falls under."""

from dataclasses import dataclass

from heliosd.core.messages import Priority, Terms


@dataclass(frozen=True, slots=True)
class Claim:
    """Whose request it is and what it asks for. `terms` settles it.

    Who asks goes before what is asked for: a key that is low or high is so for every model, a normal key leaves the
    class to the model. The request itself may only step down from there, unless nobody has a key.
    """

    key: str = ""
    """The API key's id; empty where none is needed."""
    share: float = 1.0
    own: Priority | None = None
    """Of the key; None leaves it to the model."""
    wished: Priority | None = None
    """By the request itself; None: it says nothing."""
    bounded: bool = False
    """The wish may lower the class and not raise it."""
    work_tokens: int = 1
    prefix: tuple[int, ...] = ()

    def terms(self, of_model: Priority) -> Terms:
        """The terms on which it waits for a model whose requests are of the class `of_model`."""
        priority = of_model if self.own is None else self.own
        if self.wished is not None:
            priority = min(priority, self.wished) if self.bounded else self.wished
        return Terms(self.key, self.share, priority, self.work_tokens, self.prefix)
