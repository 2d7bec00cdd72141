"""Starts phase by phase, from the command line."""

import json
from pathlib import Path

import pytest

from heliosctl.__main__ import main
from tests.e2e.daemon import heliosd
from tests.store.models import model_files, write_folder

FLEET = '[[device]]\nname = "g0"\ncapacity = "8GiB"\n'
CONFIG = '[models."test/slow"]\nengine_args = {load_s = 0.5}\n'


@pytest.mark.slow
def test_a_start_is_shown_while_it_happens_and_afterwards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with heliosd(fleet=FLEET, config=CONFIG) as daemon:
        daemon.bring(write_folder(tmp_path / "m", model_files()), "test/slow")
        where = ["--socket", str(daemon.socket)]
        assert main([*where, "load", "test/slow", "--timeline"]) == 0
        said, shown = capsys.readouterr().err, ""
        assert "weights took" in said and "warm_up took" in said
        assert main([*where, "stop", "test/slow"]) == 0
        capsys.readouterr()
        assert main([*where, "load", "test/slow", "--timeline"]) == 0
        ended = capsys.readouterr()
        assert "expected" in ended.err and "left" in ended.err, "the second start is compared with the first"
        assert "started in" in ended.out
        assert main([*where, "stop", "test/slow"]) == 0
        capsys.readouterr()
        for subject, replica in (("test/slow", "r2"), ("r1", "r1")):
            assert main([*where, "timeline", subject, "-o", "json"]) == 0
            shown = capsys.readouterr().out
            body = json.loads(shown)
            assert (body["replica"], body["state"]) == (replica, "ended")
            assert [span["phase"] for span in body["spans"]] == [
                "dispatch", "resolve", "turn", "fork", "weights", "warm_up", "settle",
            ]  # fmt: skip
            assert body["other_s"] <= 0.05 * body["total_s"]
        assert 'helios_replica_start_seconds_total{phase="weights"}' in daemon.admin.get("/metrics").text
