"""Which configuration files there are, and where state goes when nobody says."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Places:
    """The folder of helios.toml and conf.d, and the default state and runtime folders."""

    config_dir: Path
    state_dir: Path
    runtime_dir: Path


def usual_places(environ: Mapping[str, str], *, root: bool, etc: Path = Path("/etc/helios")) -> Places:
    """The system's places for root and for the systemd service, else the user's XDG places.

    A user without a configuration of their own gets the machine's, but not its state.
    """
    state = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if root or Path(state).name == "helios":
        runtime = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
        return Places(etc, Path(state or "/var/lib/helios"), Path(runtime or "/run/helios"))
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    config_dir = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "helios"
    state_dir = Path(environ.get("XDG_STATE_HOME") or home / ".local/state") / "helios"
    runtime_home = environ.get("XDG_RUNTIME_DIR")
    try:
        if not files_in(config_dir) and files_in(etc):
            config_dir = etc
    except PermissionError:
        pass  # the machine's configuration is closed to this user, so it is not meant for them
    return Places(config_dir, state_dir, Path(runtime_home) / "helios" if runtime_home else state_dir)


def files_in(folder: Path) -> tuple[Path, ...]:
    """The files of a configuration folder, what wins last. Raises OSError when one may not look."""
    main = folder / "helios.toml"
    return (*((main,) if main.exists() else ()), *fragments_in(folder))


def fragments_in(folder: Path) -> tuple[Path, ...]:
    """The files of conf.d in order. Not by `glob`: that takes a folder it may not read for an empty one."""
    try:
        found = list((folder / "conf.d").iterdir())
    except FileNotFoundError:
        return ()
    return tuple(sorted(path for path in found if path.suffix == ".toml" and not path.name.startswith(".")))
