"""Where the configuration comes from and what wins: flag > HELIOS_* > conf.d/*.toml > helios.toml > default.

Every value is checked where it stands, also one that another source overrides, and keeps the name of its source.
"""

import json
import os
import re
import socket
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from heliosd.config import Settings
from heliosd.config_keys import Key, check_value, find_fault, in_words, keys_of, read_text, write_key
from heliosd.config_places import Places, files_in, fragments_in, usual_places
from heliosd.errors import ConfigError

DEFAULT = "default"
FLAGS: Mapping[str, str] = {
    "api.host": "--host",
    "api.port": "--port",
    "api.socket": "--socket",
    "node.state_dir": "--state-dir",
    "log.level": "--log-level",
    "log.format": "--log-format",
}
"""The keys that have a flag of their own."""

_PREFIX = "HELIOS_"
_CONFIG_VARIABLE = "HELIOS_CONFIG"
_SERVICE_LINK = re.compile(r"_(SERVICE_(HOST|PORT)(_.*)?|PORT(_\d+_(TCP|UDP|SCTP)(_.*)?)?)$")
"""Variables that Kubernetes adds for each Service: one named `helios-api` yields HELIOS_API_PORT=tcp://10.0.0.1:8484."""
_SECRET_FILES = (
    (("store", "hub_token"), ("store", "hub_token_file")),
    (("cluster", "key"), ("cluster", "key_file")),
    (("alerts", "webhook"), ("alerts", "webhook_file")),
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration, where each value came from, and what is needed to read it again."""

    settings: Settings
    origins: Mapping[str, str]
    """By dotted key: a file, a variable, a flag, or `default`."""
    files: tuple[Path, ...]
    flags: Mapping[str, Any] = field(repr=False)
    environ: Mapping[str, str] = field(repr=False)
    config: Path | None
    places: Places

    def again(self) -> "Loaded":
        """Read everything anew, as SIGHUP asks. Raises ConfigError and leaves this one as it is."""
        return load_settings(self.flags, self.environ, config=self.config, places=self.places)


def load_settings(
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    config: Path | None = None,
    places: Places | None = None,
) -> Loaded:
    """Read all sources. `flags` has dotted keys; `config` replaces helios.toml, and conf.d beside it is read too.

    `environ` is the process's own when not given. Raises ConfigError with every fault found, one a line.
    """
    flags = dict(flags or {})
    environ = dict(os.environ if environ is None else environ)
    places = places or usual_places(environ, root=os.geteuid() == 0)
    given = _Given({}, [])
    named = config or environ.get(_CONFIG_VARIABLE)
    files = _choose_files(Path(named).absolute() if named else None, places, given)
    for rank, file in enumerate(files):
        given.add_table(_Source(str(file), rank), _read_toml(file, given))
    _add_environment(given, environ, len(files))
    for dotted, value in flags.items():
        section, _, name = dotted.partition(".")
        given.add(_Source(FLAGS.get(dotted, "flag"), len(files) + 1), (section, name), value, text=True)
    _read_secret_files(given)
    given.raise_problems()
    settings = _whole(given, places)
    origins = {write_key(key): given.origin(key) for key in keys_of(settings)}
    return Loaded(settings, origins, files, flags, environ, config, places)


@dataclass(frozen=True, slots=True)
class _Source:
    """Who gave a value. A higher rank wins."""

    name: str
    rank: int


@dataclass(frozen=True, slots=True)
class _Given:
    """The values given so far, each with the strongest source of it, and the faults found so far."""

    values: dict[Key, tuple[Any, _Source]]
    problems: list[str]

    def origin(self, key: Key) -> str:
        return self.values[key][1].name if key in self.values else DEFAULT

    def blame(self, key: Key) -> str:
        """Who is at fault for a key: its own source, else the strongest that says anything in its section."""
        near = [source for other, (_, source) in self.values.items() if other[0] == key[0]]
        if key in self.values or not near:
            return self.origin(key)
        return max(near, key=lambda source: source.rank).name

    def fault(self, origin: str, key: Key, message: str) -> None:
        self.problems.append(f"{origin}: {write_key(key)}: {message}")

    def add_table(self, source: _Source, table: Mapping[str, Any]) -> None:
        for key, value in _leaves(table):
            self.add(source, key, value)

    def add(self, source: _Source, key: Key, value: Any, *, text: bool = False) -> None:
        """Check one value and keep it. `text`: a string may spell a number or a list, as in a variable or a flag."""
        if fault := find_fault(key, value):
            self.fault(source.name, key, fault)
            return
        if len(key) < (3 if key[0] == "models" else 2):
            return  # an empty table says nothing
        try:
            read = read_text(key, value) if text and isinstance(value, str) else check_value(key, value)
            self.values[key] = (read, source)
        except ValueError as error:
            self.fault(source.name, key, str(error))

    def raise_problems(self) -> None:
        if self.problems:
            raise ConfigError("\n  ".join(["cannot use the configuration:", *self.problems]))


def _leaves(table: Mapping[str, Any]) -> Iterator[tuple[Key, Any]]:
    """A nested table as keys and values. What has a wrong shape stays whole, for the check to find."""
    for section, content in table.items():
        if section not in Settings.model_fields or not isinstance(content, dict):
            yield (section,), content
            continue
        for name, value in content.items():
            if section != "models" or not isinstance(value, dict):
                yield (section, name), value
            else:
                yield (section, name), {}
                if find_fault((section, name), {}) is None:
                    yield from (((section, name, part), leaf) for part, leaf in value.items())


def _choose_files(config: Path | None, places: Places, given: _Given) -> tuple[Path, ...]:
    try:
        return (config, *fragments_in(config.parent)) if config else files_in(places.config_dir)
    except OSError as error:
        given.problems.append(f"{error.filename or places.config_dir}: cannot be read: {error.strerror}")
        return ()


def _read_toml(file: Path, given: _Given) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        given.problems.append(f"{file}: cannot be read: {error.strerror}")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        given.problems.append(f"{file}: is not TOML: {error}")
    return {}


def _add_environment(given: _Given, environ: Mapping[str, str], rank: int) -> None:
    """Read HELIOS_SECTION__KEY, its plain spelling HELIOS_SECTION_KEY, and HELIOS_SECTION with a JSON object.

    Other names that begin with HELIOS_ are heliosctl's or Kubernetes' and left alone. An empty variable says nothing.
    """
    for variable, text in sorted(environ.items()):
        if not text or not variable.startswith(_PREFIX) or variable == _CONFIG_VARIABLE:
            continue
        section, underscore, rest = variable.removeprefix(_PREFIX).lower().partition("_")
        doubled = rest.startswith("_")
        key = (section, rest.removeprefix("_"))
        if section not in Settings.model_fields and not doubled:
            continue
        if not underscore:
            _add_json(given, section, text, _Source(variable, rank))
        elif section == "models":
            given.fault(variable, (section,), f"write a JSON object into {_PREFIX}MODELS instead")
        elif not doubled and ("://" in text if find_fault(key, text) is None else _SERVICE_LINK.search(variable)):
            continue
        else:
            given.add(_Source(variable, rank), key, text, text=True)


def _add_json(given: _Given, section: str, text: str, source: _Source) -> None:
    try:
        table = json.loads(text)
    except ValueError:
        table = None
    if isinstance(table, dict):
        given.add_table(source, {section: table})
    else:
        given.fault(source.name, (section,), "must be a JSON object")


def _read_secret_files(given: _Given) -> None:
    """Put the content of `…_file` where the secret itself would stand, unless a stronger source gave that."""
    for secret, file in _SECRET_FILES:
        if file not in given.values:
            continue
        path, source = given.values[file]
        if secret in given.values:
            rank = given.values[secret][1].rank
            if rank == source.rank:
                given.fault(source.name, file, f"is set beside {write_key(secret)}: keep one of the two")
            if rank >= source.rank:
                continue
        try:
            text = path.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            given.fault(source.name, file, f"cannot read {path}: {error}")
            continue
        if text:
            given.values[secret] = (SecretStr(text), _Source(str(path), source.rank))
        else:
            given.fault(source.name, file, f"{path} is empty")


def _whole(given: _Given, places: Places) -> Settings:
    """Put the values together, with the defaults that depend on the machine or on other keys."""
    tables: dict[str, Any] = {section: {} for section in Settings.model_fields}
    for key, (value, _) in given.values.items():
        table = tables
        for part in key[:-1]:
            table = table.setdefault(part, {})
        table[key[-1]] = value
    node = tables["node"]
    node.setdefault("name", socket.gethostname() or "helios")
    node.setdefault("state_dir", places.state_dir)
    node.setdefault("runtime_dir", places.runtime_dir)
    tables["api"].setdefault("socket", node["runtime_dir"] / "heliosd.sock")
    tables["store"].setdefault("path", node["state_dir"] / "store")
    try:
        return Settings(**tables)
    except ValidationError as error:
        for fault in error.errors():
            key = (*map(str, fault["loc"]), *filter(None, [fault.get("ctx", {}).get("key")]))
            given.fault(given.blame(key), key, in_words(fault))
        given.raise_problems()
        raise
