"""A LoRA beside its base on a real daemon with real vLLM: imported, listed, asked, all by one replica."""

import json
from pathlib import Path

import openai
import pytest

from heliosctl.exits import Exit
from tests.e2e.conftest import TINY
from tests.e2e.daemon import Daemon, heliosd
from tests.e2e.test_cli import ctl, said
from tests.store.models import adapter_files, write_folder

pytestmark = pytest.mark.slow

ASK = [{"role": "user", "content": "Count."}]


def answer(daemon: Daemon, model: str) -> str:
    asked = {"model": model, "messages": ASK, "max_tokens": 12, "temperature": 0}
    whole = daemon.openai().chat.completions.create(**asked)
    assert whole.model in (model, "you/poet", TINY)
    streamed = daemon.openai().chat.completions.create(**asked, stream=True)
    text = "".join(piece.choices[0].delta.content or "" for piece in streamed)
    assert text == whole.choices[0].message.content
    return text


def serving(daemon: Daemon) -> list[str]:
    """The replicas that requests were given to, in order, without repetitions."""
    granted = [event["replica"] for event in daemon.events(limit=10_000) if event["kind"] == "grant"]
    return list(dict.fromkeys(granted))


def test_an_adapter_from_its_import_to_its_end(stock: Path, tmp_path: Path) -> None:
    poet = write_folder(tmp_path / "poet", adapter_files("/home/you/tiny", seed=1))
    clerk = write_folder(tmp_path / "clerk", adapter_files(TINY, seed=2))
    bad = write_folder(tmp_path / "bad", adapter_files(TINY, seed=3, use_dora=True))
    with heliosd(stock=stock) as daemon:
        bare = answer(daemon, TINY)
        refused = ctl(daemon, "import", str(poet), "--name", "you/poet")
        assert refused.returncode != Exit.OK
        assert "--base REF" in refused.stderr
        assert said(daemon, "import", str(poet), "--name", "you/poet", "--alias", "poet", "--base", "tiny").strip()
        assert said(daemon, "import", str(clerk)).strip() == "clerk"
        rows = {row["ref"]: row for row in json.loads(said(daemon, "ls", "-o", "json"))["models"]}
        assert {name: rows[name]["base"] for name in (TINY, "you/poet", "clerk")} == {
            TINY: None,
            "you/poet": TINY,
            "clerk": TINY,
        }
        assert "adapter of" in said(daemon, "show", "poet")
        parents = {model.id: model.model_dump()["parent"] for model in daemon.openai().models.list()}
        assert parents["you/poet"] == TINY

        answers = [answer(daemon, name) for name in ("poet", "clerk", TINY, "poet")]
        assert answers[2] == bare, "the base no longer answers as it did"
        assert len(set(answers)) == 3, "an adapter changed nothing"
        assert answers[0] == answers[3]
        assert serving(daemon) == ["r1", "r2"], "r1 had no room for adapters, r2 serves all three"
        assert [event["model"] for event in daemon.events() if event["kind"] == "adapter"] == ["you/poet", "clerk"]
        assert daemon.metric("helios_adapter_load_seconds_count") == 2
        assert "read the adapter you/poet" in said(daemon, "explain", "poet")

        said(daemon, "import", str(bad))
        with pytest.raises(openai.APIStatusError, match="DoRA") as caught:
            answer(daemon, "bad")
        assert caught.value.body["code"] == "adapter_refused"  # type: ignore[index]
        assert answer(daemon, "clerk") == answers[1]
        assert serving(daemon) == ["r1", "r2"], "a bad adapter cost an engine"

        kept = ctl(daemon, "rm", "-y", "tiny")
        assert kept.returncode != Exit.OK
        said(daemon, "stop", "tiny")
        kept = ctl(daemon, "rm", "-y", "tiny")
        assert "adapters of it; remove bad, clerk, you/poet first" in kept.stderr
        said(daemon, "rm", "-y", "bad", "clerk", "poet", "tiny")
