"""The file of conf.d that holds what recommendations changed: read, changed, compared, written."""

import difflib
import os
import re
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heliosctl.exits import Exit, Failure

if TYPE_CHECKING:
    from heliosd.wire import SettingView

HEAD = "# Written by `heliosctl recommend --apply`, which writes it anew each time: edit another file.\n"
_KEY = re.compile(r'(?P<table>[a-z_]+|models\."[^"\\]+")\.(?P<key>[a-z_]+)')


def changed(file: Path, settings: "Iterable[SettingView]") -> tuple[str, str]:
    """The file's text before and after. Raises Failure for a file that is somebody's own."""
    try:
        before = file.read_text() if file.exists() else ""
        tables: dict[str, dict[str, Any]] = _flat(tomllib.loads(before))
    except (OSError, ValueError) as error:
        raise Failure(f"cannot read {file}: {error}") from error
    if before and not before.startswith(HEAD):
        raise Failure(
            f"cannot write {file}: it was written by somebody else; name a new file, such as 90-advice.toml beside it",
            Exit.USAGE,
        )
    for each in settings:
        match = _KEY.fullmatch(each.key)
        if match is None:
            raise Failure(f"cannot write {each.key} into {file}: put it there by hand")
        tables.setdefault(match["table"], {})[match["key"]] = each.after
    return before, HEAD + "".join(_table(name, tables[name]) for name in sorted(tables))


def diff(file: Path, before: str, after: str) -> str:
    """Of the two texts, as `diff -u` has it."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), str(file), str(file), lineterm="")
    return "\n".join(lines)


def write(file: Path, text: str) -> None:
    """Whole or not at all. Raises Failure."""
    try:
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        beside = Path(name)
        try:
            with os.fdopen(handle, "w") as out:
                out.write(text)
                out.flush()
                os.fsync(handle)
            beside.chmod(0o644)
            beside.replace(file)
        except BaseException:
            beside.unlink()
            raise
    except OSError as error:
        raise Failure(f"cannot write {file}: {error.strerror}; is it yours to write?") from error


def toml(value: object) -> str:
    """A boolean, a number, or a text without anything to escape."""
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)


def _flat(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    models = document.pop("models", {})
    return {**document, **{f'models."{name}"': table for name, table in models.items()}}


def _table(name: str, values: dict[str, Any]) -> str:
    lines = "".join(f"{key} = {toml(value)}\n" for key, value in sorted(values.items()))
    return f"\n[{name}]\n{lines}"
