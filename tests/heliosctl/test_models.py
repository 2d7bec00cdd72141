import json
from pathlib import Path

import pytest
import yaml

from heliosd.core.units import MiB
from heliosd.wire import ProgressView
from tests.heliosctl.samples import model
from tests.heliosctl.stand_in_replies import Refusal


def test_ls_shows_a_table(daemon, ctl):
    ended = ctl("ls")
    assert ended.code == 0
    titles, row = ended.out.splitlines()
    assert titles.split() == ["MODEL", "REVISION", "SIZE", "STATE", "CREATED", "BASE"]
    assert row.split()[:5] == ["org/small", "abababababab", "270.0", "MiB", "stored"]


def test_ls_wide_shows_more(daemon, ctl):
    out = ctl("ls", "-o", "wide").out
    assert "135M" in out and "LlamaForCausalLM" in out and "gguf: /models/small.gguf" in out


@pytest.mark.parametrize(("form", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_ls_gives_programs_the_api_body(daemon, ctl, form, load):
    body = load(ctl("ls", "-o", form).out)
    assert body["models"][0]["ref"] == "org/small"
    assert body["models"][0]["parameters"] == 134_515_008


def test_an_empty_store_says_what_to_do_on_stderr(daemon, ctl):
    daemon.models.clear()
    ended = ctl("ls")
    assert "heliosctl pull" in ended.err
    assert "pull" not in ended.out


def test_quiet_prints_names_only(daemon, ctl):
    daemon.models.append(model("org/other"))
    assert ctl("ls", "-q").out == "org/small\norg/other\n"


def test_pull_asks_for_the_revision_and_tells_progress(daemon, ctl):
    daemon.progress += [
        ProgressView(phase="fetch", item="model.safetensors", done_bytes=4 * MiB, total_bytes=4 * MiB),
        ProgressView(phase="commit"),
    ]
    ended = ctl("pull", "org/small@v1", "--alias", "small")
    assert ended.code == 0
    assert ended.out == "org/small\n"
    assert "fetch model.safetensors 1.0 MiB of 4.0 MiB, 25%" in ended.err
    assert "4.0 MiB of 4.0 MiB, 100%" in ended.err
    assert "\ncommit\n" in ended.err
    assert daemon.asked[-1][3] == {
        "source": "hub",
        "location": "org/small",
        "revision": "v1",
        "alias": "small",
        "allow_pickle": False,
        "anyway": False,
    }
    ctl("pull", "org/small", "--anyway")
    assert daemon.asked[-1][3]["anyway"] is True


def test_a_failed_pull_tells_the_daemons_reason(daemon, ctl):
    daemon.add_error = Refusal(502, "source_failed", "cannot fetch org/small", "connection reset")
    ended = ctl("pull", "org/small")
    assert (ended.code, ended.out) == (1, "")
    assert "heliosctl: cannot fetch org/small\ncause: connection reset\n" in ended.err


def test_a_pull_that_is_cut_off_is_a_failure(daemon, ctl):
    daemon.cut = True
    ended = ctl("pull", "org/small")
    assert ended.code == 1
    assert "ended the answer early" in ended.err


def test_import_tells_a_gguf_from_a_directory(daemon, ctl, tmp_path: Path):
    gguf = tmp_path / "small.gguf"
    gguf.touch()
    assert ctl("import", str(gguf), "--name", "me/small").code == 0
    assert ctl("import", str(tmp_path)).code == 0
    bodies = [body for method, _, _, body in daemon.asked if method == "POST"]
    assert [(body["source"], body["location"]) for body in bodies] == [
        ("gguf", str(gguf)),
        ("directory", str(tmp_path)),
    ]
    assert bodies[0]["ref"] == "me/small"


def test_an_adapter_is_brought_and_shown_with_its_base(daemon, ctl, tmp_path: Path):
    assert ctl("import", str(tmp_path), "--base", "small").code == 0
    assert daemon.asked[-1][3]["base"] == "small"
    assert ctl("pull", "you/poet", "--base", "small").code == 0
    assert daemon.asked[-1][3]["base"] == "small"
    daemon.models.append(model("you/poet", base="org/small", adapter_rank=8))
    rows = ctl("ls").out.splitlines()
    assert [row.split()[-1] for row in rows] == ["BASE", "-", "org/small"]
    assert "adapter of     org/small, of rank 8" in ctl("show", "you/poet").out


def test_import_of_nothing_asks_no_daemon(daemon, ctl):
    assert ctl("import", "/no/such/place").code == 4
    assert daemon.asked == []


def test_show_tells_what_is_known(daemon, ctl):
    out = ctl("show", "small").out
    assert "architecture   LlamaForCausalLM" in out
    assert "22.5 KiB per token" in out
    assert "cdcd" not in out
    assert "cd" * 32 in ctl("show", "org/small", "-o", "wide").out


def test_an_unknown_model_is_suggested_a_near_one(daemon, ctl):
    ended = ctl("show", "org/smal")
    assert ended.code == 4
    assert "did you mean org/small?" in ended.err


def test_rm_removes_and_tells_what_became_free(daemon, ctl):
    ended = ctl("rm", "-y", "org/small")
    assert ended.code == 0
    assert "270.0 MiB are free" in ended.err
    assert daemon.models == []


def test_rm_asks_first_and_without_a_terminal_refuses(daemon, ctl):
    ended = ctl("rm", "org/small")
    assert ended.code == 2
    assert "-y" in ended.err
    assert len(daemon.models) == 1


def test_a_model_in_use_stays(daemon, ctl):
    daemon.refusals["DELETE /helios/v1/models/org/small"] = Refusal(409, "conflict", "cannot remove: r1 uses it")
    ended = ctl("rm", "-y", "org/small")
    assert ended.code == 1
    assert "r1 uses it" in ended.err


def test_alias_gives_a_model_a_further_name(daemon, ctl):
    ended = ctl("alias", "me/best", "small")
    assert (ended.code, ended.out, ended.err) == (0, "me/best\n", "me/best means org/small\n")
    assert daemon.asked[-1] == ("PUT", "/helios/v1/aliases/me/best", {}, {"ref": "small"})


def test_alias_rm_takes_the_name_back(daemon, ctl):
    ended = ctl("alias", "--rm", "small", "-o", "json")
    assert (ended.code, json.loads(ended.out)) == (0, {"alias": "small", "ref": "org/small"})
    assert ended.err == "small no longer means org/small\n"
    assert daemon.asked[-1][:2] == ("DELETE", "/helios/v1/aliases/small")


@pytest.mark.parametrize("words", [("best",), ("best", "org/small", "--rm")])
def test_alias_needs_a_model_or_rm(daemon, ctl, words):
    ended = ctl("alias", *words)
    assert ended.code == 2
    assert "name a model or say --rm" in ended.err
    assert daemon.asked == []


def test_an_alias_for_what_is_not_there(daemon, ctl):
    ended = ctl("alias", "best", "nobody")
    assert ended.code != 0
    assert "cannot find the model nobody" in ended.err
