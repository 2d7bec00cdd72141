"""Pinning and sleeping from the command line, against the real daemon with simulated devices."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from heliosctl.exits import Exit
from tests.heliosctl.conftest import Ended
from tests.heliosctl.test_against_heliosd import heliosd

pytestmark = pytest.mark.slow
__all__ = ["heliosd"]


def test_pin_sleep_wake_unpin(heliosd: Path, ctl: Callable[..., Ended], tiny_dir: Path):
    assert ctl("import", str(tiny_dir), "--name", "me/tiny").code == 0
    assert ctl("pin").out.split() == ["MODEL", "REPLICAS"]
    assert ctl("pin", "me/tiny").out == "me/tiny\n"
    assert ctl("load", "me/tiny").code == 0
    assert "(pinned)" in ctl("ps").out
    assert json.loads(ctl("pin", "-o", "json").out)["pins"] == [{"model": "me/tiny", "replicas": 1}]
    assert ctl("unpin", "me/tiny").code == 0
    assert ctl("unpin", "me/tiny").code == Exit.NOT_FOUND
    assert ctl("sleep", "me/tiny").out.startswith("r")
    assert "asleep" in ctl("ps").out
    assert ctl("wake", "me/tiny").code == 0
    assert "ready" in ctl("ps").out
    assert ctl("pin", "me/nobody").code == Exit.NOT_FOUND
    assert ctl("sleep", "r99").code == Exit.NOT_FOUND
