"""Where the daemon listens: flag before environment before the usual places. Opens nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from heliosctl.exits import Exit, Failure


@dataclass(frozen=True, slots=True)
class UnixPlace:
    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class TcpPlace:
    url: str
    """Without a slash at the end."""
    key: str | None

    def __str__(self) -> str:
        return self.url


Place = UnixPlace | TcpPlace


def usual_sockets(env: Mapping[str, str]) -> tuple[Path, ...]:
    """Where a daemon of the system, then one of this user, has its socket."""
    places = [Path("/run/helios/heliosd.sock")]
    if runtime := env.get("XDG_RUNTIME_DIR"):
        places.append(Path(runtime) / "helios" / "heliosd.sock")
    state = env.get("XDG_STATE_HOME") or Path(env.get("HOME", "~")).expanduser() / ".local" / "state"
    places.append(Path(state) / "helios" / "heliosd.sock")
    return tuple(places)


def find_place(socket: str | None, url: str | None, key: str | None, env: Mapping[str, str]) -> Place:
    """Return where to connect to. Raises Failure when nothing is named and no usual socket exists."""
    key = key or env.get("HELIOS_KEY") or None
    if socket:
        return UnixPlace(Path(socket))
    if url:
        return TcpPlace(_checked(url), key)
    if named := env.get("HELIOS_SOCKET"):
        return UnixPlace(Path(named))
    if named := env.get("HELIOS_URL"):
        return TcpPlace(_checked(named), key)
    looked = usual_sockets(env)
    for path in looked:
        if path.exists():
            return UnixPlace(path)
    raise Failure(
        f"cannot find a running heliosd: no socket at {', '.join(map(str, looked))}. Start it with `heliosd` "
        "(or `systemctl start heliosd`), or say where it is with --socket or --url",
        Exit.UNREACHABLE,
    )


def _checked(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise Failure(f"cannot use {url!r} as a URL: write it like http://127.0.0.1:8484", Exit.USAGE)
    return url.rstrip("/")
