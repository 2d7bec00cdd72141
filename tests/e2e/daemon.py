"""A real `heliosd` process: started with a configuration given as text, asked over its sockets, stopped and examined.

Everything it makes lies in one folder with a short path (a Unix socket's path has room for 107 bytes), which is also
its working directory: by that its descendants are found, whoever their parent has become.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import psutil

if TYPE_CHECKING:
    from anthropic import Anthropic
    from openai import AsyncOpenAI, OpenAI

T = TypeVar("T")

MADE_ONCE = "torchinductor_"
"""A folder that torch makes in TMPDIR when it is imported, the same each time."""
READY_S = 60.0
STOP_S = 60.0

_BASE = """
[node]
name = "{name}"
state_dir = "{state}"
runtime_dir = "{folder}"
[api]
port = 0
socket = "{folder}/s"
"""


class Daemon:
    """One heliosd. Its state outlives `kill`, so that `start` can begin again on it."""

    def __init__(self, folder: Path, *, config: str = "", fleet: str | None = None, name: str = "e2e") -> None:
        self.folder = folder
        self.state = folder / "state"
        self.socket = folder / "s"
        self.log_file = folder / "log"
        self.config = folder / "helios.toml"
        self.base = _BASE.format(name=name, state=self.state, folder=folder)
        self.configure(config)
        self.fleet = folder / "fleet.toml" if fleet is not None else None
        if self.fleet is not None and fleet is not None:
            self.fleet.write_text(fleet)
        self.tmp = folder / "t"
        self.tmp.mkdir(exist_ok=True)
        self.expected: list[str] = []
        """Words of the faults that a test brings about."""
        self.environment = {"HF_HUB_OFFLINE": "1"}
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self._log_from = 0
        self.admin = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.socket)), base_url="http://heliosd", timeout=120
        )

    def configure(self, config: str) -> None:
        """Write the configuration: the tables of `config`, joined with those every test daemon has."""
        base, text = self.base, config
        for table in ("node", "api"):
            head = f"[{table}]\n"
            if head in text:
                before, _, after = text.partition(head)
                lines, bracket, rest = after.partition("\n[")
                base = base.replace(head, head + lines + "\n")
                text = before + bracket.lstrip("\n") + rest
        self.config.write_text(base + text)

    # ---- life ------------------------------------------------------------------

    def start(self, *flags: str) -> "Daemon":
        """Start and return when it is ready."""
        self.spawn(*flags)
        self.until(self.ready, READY_S, "heliosd was not ready")
        return self

    def spawn(self, *flags: str) -> None:
        """Start, and return at once."""
        words = [sys.executable, "-m", "heliosd", "--config", str(self.config), *flags]
        words += ["--simulate", str(self.fleet)] if self.fleet else []
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HELIOS_")}
        environment |= {"TMPDIR": str(self.tmp), **self.environment}
        self._log_from = self.log_file.stat().st_size if self.log_file.exists() else 0
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, env=environment,
                start_new_session=True,
            )  # fmt: skip

    def ready(self) -> bool:
        """Whether `/readyz` answers 200. Fails when the process has ended."""
        assert self.process is not None
        code = self.process.poll()
        assert code is None, f"heliosd ended with {code}\n{self.log()}"
        port = re.search(r"msg=listening .*\bport=(\d+)", self.log())
        if port is None:
            return False
        self.url = f"http://127.0.0.1:{port[1]}"
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz").status_code == 200
        return False

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def terminate(self) -> None:
        assert self.process is not None
        self.process.terminate()

    def stop(self, within_s: float = STOP_S) -> None:
        """Stop with SIGTERM. It must end with 0 and leave no process, no socket and no temporary file."""
        self.terminate()
        self.ended_well(within_s)

    def ended_well(self, within_s: float = STOP_S) -> None:
        """After a SIGTERM: see `stop`."""
        assert self.process is not None
        code = self.process.wait(within_s)
        assert code == 0, f"heliosd ended with {code}\n{self.log()}"
        assert self.processes() == [], f"processes are left\n{self.log()}"
        assert not self.socket.exists(), "the Unix socket is left"
        left = [path.name for path in self.tmp.iterdir() if not path.name.startswith(MADE_ONCE)]
        assert left == [], "temporary files are left"
        assert [fault for fault in self.faults() if not any(words in fault for words in self.expected)] == []
        self.process = None

    def kill(self) -> None:
        """SIGKILL to the daemon alone: what it had started must notice by itself."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def processes(self) -> list[psutil.Process]:
        """Everything that came of this daemon and lives, itself included."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if Path(process.cwd()).is_relative_to(self.folder) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def clear_away(self) -> None:
        """Whatever happened, leave nothing running."""
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()
        if self.process is not None:
            self.process.wait(10)
        self.admin.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- what it says ----------------------------------------------------------

    def log(self) -> str:
        """What it has said since it was started last."""
        return self.log_file.read_bytes()[self._log_from :].decode(errors="replace") if self.log_file.exists() else ""

    def faults(self) -> list[str]:
        """Its own complaints about itself; what engines and their libraries log is theirs."""
        return re.findall(r"^ts=\S+ level=(?:error|critical) logger=heliosd\b.*$", self.log(), re.M)

    def until(self, true: Callable[[], T], within_s: float, otherwise: str) -> T:
        """Ask again and again until the answer is true. Fails with the log after `within_s`."""
        return until(true, within_s, lambda: f"{otherwise} within {within_s} s\n{self.log()}")

    def get(self, path: str, **query: Any) -> Any:
        """The JSON of an admin path; fails unless it is answered with 2xx."""
        answer = self.admin.get(f"/helios/v1/{path}", params=query)
        assert answer.is_success, (path, answer.status_code, answer.text)
        return answer.json()

    def replicas(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("replicas")["replicas"]
        return found

    def device(self) -> dict[str, Any]:
        """The only device."""
        (found,) = self.get("devices")["devices"]
        return dict(found)

    def idle(self) -> bool:
        """Nothing runs and nothing is promised."""
        return not self.replicas() and all(row["promised_bytes"] == 0 for row in self.get("devices")["devices"])

    def events(self, **query: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("events", **query)["events"]
        return found

    def metric(self, name: str) -> float:
        """The sum of all samples of a metric; 0 when there are none."""
        lines = re.findall(rf"^{re.escape(name)}(?:\{{.*\}})? (\S+)$", httpx.get(f"{self.url}/metrics").text, re.M)
        return sum(map(float, lines))

    # ---- what it is asked ------------------------------------------------------

    def bring(self, source: Path, ref: str, alias: str | None = None) -> None:
        """Import a directory."""
        body = {"source": "directory", "location": str(source), "ref": ref, "alias": alias}
        answer = self.admin.post("/helios/v1/models", json=body)
        assert "event: done" in answer.text, answer.text

    def load(self, model: str) -> dict[str, Any]:
        answer = self.admin.post("/helios/v1/replicas", json={"model": model})
        assert answer.is_success, answer.text
        return dict(answer.json())

    def unload(self, model: str) -> None:
        answer = self.admin.delete(f"/helios/v1/replicas/{model}")
        assert answer.is_success, answer.text

    def openai(self, key: str = "none needed", **options: Any) -> "OpenAI":
        from openai import OpenAI

        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=120, **options)

    def async_openai(self, key: str = "none needed") -> "AsyncOpenAI":
        from openai import AsyncOpenAI

        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=120)

    def anthropic(self, key: str = "none needed") -> "Anthropic":
        from anthropic import Anthropic

        return Anthropic(base_url=self.url, api_key=key, max_retries=0, timeout=120)


@contextmanager
def a_folder() -> Iterator[Path]:
    """An empty folder with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="he-", dir="/tmp")).resolve()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def heliosd(
    *,
    config: str = "",
    fleet: str | None = None,
    stock: Path | None = None,
    name: str = "e2e",
    flags: tuple[str, ...] = (),
) -> Iterator[Daemon]:
    """A running daemon, ready when the block begins; stopped, and its end examined, when the block ends well.

    `stock` is a state directory to begin with; its blobs are shared, not copied.
    """
    with prepared(config=config, fleet=fleet, stock=stock, name=name) as daemon:
        daemon.start(*flags)
        yield daemon
        if daemon.process is not None:
            daemon.stop()


@contextmanager
def prepared(
    *, config: str = "", fleet: str | None = None, stock: Path | None = None, name: str = "e2e"
) -> Iterator[Daemon]:
    """A daemon that is not started yet; however the block ends, nothing is left of it."""
    with a_folder() as folder:
        daemon = Daemon(folder, config=config, fleet=fleet, name=name)
        if stock is not None:
            share(stock, daemon.state)
        try:
            yield daemon
        finally:
            daemon.clear_away()


def share(stock: Path, state: Path) -> None:
    """A state directory like `stock`, with blobs as hard links: they are read-only."""

    def bring(source: str, target: str) -> str:
        link = Path(source).parent.parent.name == "sha256"
        return str(os.link(source, target) or target) if link else str(shutil.copy2(source, target))

    shutil.copytree(stock, state, symlinks=True, copy_function=bring)


def until(true: Callable[[], T], within_s: float, otherwise: Callable[[], str] | str) -> T:
    """Ask again and again until the answer is true."""
    deadline = time.monotonic() + within_s
    while not (answer := true()):
        assert time.monotonic() < deadline, otherwise if isinstance(otherwise, str) else otherwise()
        time.sleep(0.02)
    return answer


def hard_kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
