"""The panel of devices."""

from textual.containers import VerticalScroll
from textual.events import Resize
from textual.widgets import Static

from heliosd.wire import DeviceView
from tui.bars import devices_text

DETAILED_UP_TO = 3
"""So many devices are shown with their figures; more would leave no room for the rest of a small terminal."""


class DevicesPanel(VerticalScroll, can_focus=False):
    """Memory bars; one line a device when there are many."""

    DEFAULT_CSS = """
    DevicesPanel { height: auto; max-height: 50%; border: round $primary; padding: 0 1; }
    DevicesPanel > Static { height: auto; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.border_title = "devices"
        self._text = Static()
        self._devices: list[DeviceView] = []

    def compose(self) -> list[Static]:
        return [self._text]

    def show(self, devices: list[DeviceView]) -> None:
        self._devices = devices
        self._draw()

    def on_resize(self, event: Resize) -> None:
        self._draw()

    def _draw(self) -> None:
        width = self.scrollable_content_region.width
        detailed = len(self._devices) <= DETAILED_UP_TO
        self._text.update(devices_text(self._devices, width, detailed=detailed))
