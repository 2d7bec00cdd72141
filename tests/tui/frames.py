"""Writes docs/tui.md: a frame of every screen, of a whole daemon that serves twenty models on simulated devices.

    python -m tests.tui.frames > docs/tui.md

Requests come from clients in threads while the frames are taken; each frame is made by the command written above it.
"""

import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from heliosd.core.units import MiB
from tests.e2e.daemon import Daemon, prepared
from tests.store.models import model_files, write_folder
from tests.tui.household import NAMES
from tests.tui.terminal import ENV
from tui.commands import SCREENS

FLEET = '[[device]]\nname = "gpu"\ncount = 4\ncapacity = "9GiB"\nkind = "NVIDIA H100 80GB HBM3"\nforeign = "512MiB"\n'
HEAD = """\
# The screen

`heliosctl top` (or `python -m tui`) shows a node live: nine screens over one connection, in any terminal from 80x24 on.
Keys are those of nvitop and k9s; `?` shows them, the last line shows those of the screen.

| key | does |
|---|---|
| `1` to `9`, `:NAME` | the screens: top, devices, replicas, models, queue, events, keys, cluster, capacity |
| `j` `k` `g` `G`, arrows, wheel | the cursor |
| `Enter`, double click | all about the row: a start, an estimate, a request's story, an event's numbers |
| `/` | only rows with these words; `Escape` shows all again |
| `s` `S`, click on a column's name | sort; turn the order round |
| `l` `z` `w` `x` `p` `d` | load, sleep, wake, stop, pin or unpin, drain or undrain a device |
| `:load org/name`, `:drain gpu0`, … | the same as a command |
| `q` | leave |

Nothing is done before `y`: the question says what it frees and costs, from the daemon's own estimate and forecast.
`--read-only` shows no such keys and does nothing. Stop and drain let requests finish first.

What a colour tells, a glyph tells too, and the colours are told apart with any of the usual colour blindnesses. States:
`●` ready, `>` on its way, `z` asleep, `v` on its way out, `!` failed.

When the daemon goes down, what was shown stays, pale, and the first line says since when; when it is back, the events
say so. Curves show the time since the screen was opened, at most two minutes. What no feed tells (models, tiers, keys,
cluster, capacity) is asked for again every five seconds while it is looked at, when the journal tells of a change, and
with `r`.

`--once` prints one frame and leaves, for scripts and bug reports; `--size 200x300` shows more rows. With a thousand
models and two changes a second the screen takes about a twentieth of a core (`python -m tests.bench.tui_share`).

The frames below are of a node that serves twenty models on four simulated devices (`python -m tests.tui.frames`).
"""


def settings() -> str:
    models = "".join(
        f'[models."{name}"]\nkv_cache = "{1 + number % 4}GiB"\nengine_args = {{load_s = 3.0, tokens_per_s = 12.0}}\n'
        for number, name in enumerate(NAMES)
    )
    return f"[engines]\nkv_cache = '1GiB'\n[pool]\nresidence_s = 0\n[queue]\ntimeout_s = 600\n{models}"


@contextmanager
def crowd(daemon: Daemon, keys: list[str]) -> Iterator[None]:
    """Clients with these keys that ask for model after model, until the block ends."""
    leaving = threading.Event()

    def ask(number: int) -> None:
        headers = {"authorization": f"Bearer {keys[number % len(keys)]}"}
        with httpx.Client(base_url=daemon.url, timeout=600, headers=headers) as client:
            turn = number
            while not leaving.is_set():
                body = {
                    "model": NAMES[turn % len(NAMES)], "stream": True, "max_tokens": 40,
                    "messages": [{"role": "user", "content": "tell me a story"}],
                }  # fmt: skip
                with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                    for _ in answer.iter_bytes():
                        if leaving.is_set():
                            return
                turn += 7

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(24)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        leaving.set()
        for thread in threads:
            thread.join(30)


def frame(daemon: Daemon, screen: str, size: str) -> str:
    words = [sys.executable, "-m", "tui", "--once", "--size", size, "--screen", screen]
    socket = ["--socket", str(daemon.socket)]
    shown = subprocess.run([*words, *socket], check=True, capture_output=True, text=True, env=ENV).stdout
    shown = re.sub(r"directory /\S*", lambda found: "directory /models/…".ljust(len(found[0])), shown)
    return shown.replace(str(daemon.socket), "/run/helios/heliosd.sock")


def a_full_frame(daemon: Daemon, screen: str, size: str) -> str:
    """Of the queue one in which somebody waits, if there is one within twenty."""
    for _ in range(20):
        text = frame(daemon, screen, size)
        if "nobody waits" not in text:
            break
    return text


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, prepared(fleet=FLEET, config=settings(), name="gpu-box") as daemon:
        daemon.start()
        for number, name in enumerate(NAMES):
            files = model_files(size_bytes=(1 + number % 3) * MiB, seed=number)
            daemon.bring(write_folder(Path(folder) / str(number), files), name)
        asked = [{"name": "laptop"}, {"name": "batch", "priority": "low"}, {"name": "ops", "admin": True}]
        keys = [daemon.admin.post("/helios/v1/keys", json=each).json()["secret"] for each in asked]
        daemon.admin.put(f"/helios/v1/pins/{NAMES[0]}", json={"replicas": 1})
        with crowd(daemon, keys):
            daemon.until(lambda: len(daemon.replicas()) >= 6 and daemon.get("queue")["queue"], 60, "it was too calm")
            print(HEAD)
            for size in ("80x24", "160x48"):
                print(f"## {size}\n")
                for screen in SCREENS:
                    print(f"`python -m tui --once --size {size} --screen {screen}`\n\n```text")
                    print(a_full_frame(daemon, screen, size), end="")
                    print("```\n")
        daemon.terminate()


if __name__ == "__main__":
    main()
