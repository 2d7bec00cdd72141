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
            self.update(text, layout=before is None or self._height(before) != self._height(text))

    def _height(self, text: Text) -> int:
        """In lines, roughly: what is wrapped between words may take one more."""
        width = max(1, self.size.width)
        return sum(-(-len(line) // width) or 1 for line in text.plain.splitlines())
