"""Lines above or below a table that are laid out anew only when there are more or fewer of them."""

from rich.text import Text
from textual.widgets import Static


class Lines(Static):
    """Drawing the same again costs nothing."""

    def __init__(self, classes: str) -> None:
        super().__init__(classes=classes, markup=False)
        self._drawn: Text | None = None

    def draw(self, text: Text) -> None:
        before = self._drawn
        if text != before or (before is not None and text.spans != before.spans):
            self._drawn = text
            same = before is not None and [len(line) for line in before.plain.splitlines()] == [
                len(line) for line in text.plain.splitlines()
            ]
            self.update(text, layout=not same)
