"""Tokenizers of engines in this process, kept by what is in their files.

Loading one takes 0.2 to 0.5 s, and vLLM then makes copies of it for its threads: for each engine anew, though it is the
same for a restart, and for all fine-tunes of a model. The pool of copies that vLLM makes may be used by any number of
threads, and grows when more use it at once; so one pool serves every engine whose files are the same. vLLM itself keeps
the last 128 by their path, which is gigabytes; here it is the last few that were used, and those that engines hold.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

KEPT = 6
_NOT_OF_IT = (".safetensors", ".recipe", ".index.json", ".bin", ".md")
_NEITHER = frozenset({"generation_config.json", "LICENSE", "NOTICE", ".gitattributes"})
"""Of a model's files: what no tokenizer reads."""

Key = tuple[object, ...]


class Tokenizers:
    """Called from any thread. Who comes while one is loaded waits, and may find that it was his."""

    def __init__(self, load: Callable[..., Any], share: Callable[[Any], Any], kept: int = KEPT) -> None:
        """`load` reads one; `share` makes one that any number of threads may use, or None where it cannot."""
        self._load = load
        self._share = share
        self._kept = kept
        self._known: OrderedDict[Key, Any] = OrderedDict()
        self._loading = threading.Lock()
        self._lock = threading.Lock()

    def get(self, name: str, **options: Any) -> Any:
        """The tokenizer in a directory."""
        key = (*content(Path(name)), *sorted((each, str(value)) for each, value in options.items()))
        if (known := self._remembered(key)) is not None:
            return known
        with self._loading:
            if (known := self._remembered(key)) is not None:
                return known
            loaded = self._load(name, **options)
            pooled = self._share(loaded)
            return loaded if pooled is None else self._remember(key, pooled)

    def _remembered(self, key: Key) -> Any:
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)

    def _remember(self, key: Key, tokenizer: Any) -> Any:
        with self._lock:
            self._known[key] = tokenizer
            while len(self._known) > self._kept:
                self._known.popitem(last=False)
        return tokenizer


def content(directory: Path) -> Key:
    """What the files of a directory are, weights and documents left out: by the blobs that they link to, other files
    by their place and time. Equal values have equal content."""
    found: list[tuple[str, object]] = []
    for file in sorted(directory.iterdir()) if directory.is_dir() else ():
        if file.name.endswith(_NOT_OF_IT) or file.name in _NEITHER:
            continue
        real = file.resolve()
        state = real.stat()
        found.append((file.name, real.name if file.is_symlink() else (str(real), state.st_mtime_ns, state.st_size)))
    return tuple(found) or (str(directory),)


def shared(make_pool: Callable[[Any], Any], pool: type, tokenizer: Any) -> Any:
    """vLLM's pool of a tokenizer, which a copy of stands for itself: whoever copies it, as vLLM's renderers do, would
    otherwise make a pool of his own. None for kinds of tokenizer that vLLM makes no pool of."""
    pooled = make_pool(tokenizer)
    if not isinstance(pooled, pool):
        return None
    kind: Any = type(pooled)
    kind.__copy__ = lambda self: self
    return pooled
