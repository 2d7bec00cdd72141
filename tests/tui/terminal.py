"""A real terminal: tmux runs a command in it, presses keys and tells what a person would see."""

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ENV = {name: value for name, value in os.environ.items() if not name.startswith("HELIOS_")}
WITHIN_S = 60.0


class Terminal:
    """One pane of a tmux server of its own."""

    def __init__(self, socket: Path) -> None:
        self._tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]

    def start(self, words: Sequence[str], size: tuple[int, int]) -> None:
        command = shlex.join(words) + "; echo left with $?; exec cat"
        size_words = ["-x", str(size[0]), "-y", str(size[1])]
        env = ENV | {"LC_ALL": "C.UTF-8", "TERM": "xterm-256color"}
        subprocess.run([*self._tmux, "new-session", "-d", *size_words, command], check=True, env=env)

    def screen(self) -> str:
        return subprocess.run([*self._tmux, "capture-pane", "-p"], check=True, capture_output=True, text=True).stdout

    def see(self, *wanted: str, gone: str | None = None) -> str:
        """Wait until all of it is there, and what shall be gone is gone."""
        return self.until(lambda text: all(word in text for word in wanted) and (gone is None or gone not in text),
                          f"{wanted} without {gone!r}")  # fmt: skip

    def until(self, true: Callable[[str], bool], what: str) -> str:
        deadline = time.monotonic() + WITHIN_S
        while not true(text := self.screen()):
            assert time.monotonic() < deadline, f"{what} never came; the screen was\n{text}"
            time.sleep(0.05)
        return text

    def press(self, *keys: str) -> None:
        subprocess.run([*self._tmux, "send-keys", *keys], check=True)

    def write(self, text: str) -> None:
        """Type it and press Enter."""
        subprocess.run([*self._tmux, "send-keys", "-l", text], check=True)
        self.press("Enter")

    def end(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=True)


@contextmanager
def terminal(folder: Path, words: Sequence[str], size: tuple[int, int]) -> Iterator[Terminal]:
    it = Terminal(folder / "tmux")
    it.start(words, size)
    try:
        yield it
    finally:
        it.end()
