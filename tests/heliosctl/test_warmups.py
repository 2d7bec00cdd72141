"""How the command line lists and passes on what engines compiled."""

from tests.heliosctl.stand_in_replies import Refusal


def test_ls_tells_what_it_is_for(daemon, ctl):
    lines = ctl("warmups", "ls").out.splitlines()
    assert lines[1].split() == ["3fa93fa93fa9", "abababababab", "0.32.0", "-", "2", "1.0", "MiB"]


def test_what_is_exported_is_what_is_imported(daemon, ctl, tmp_path):
    file = tmp_path / "warm.tar"
    assert ctl("warmups", "export", "3fa9", str(file)).code == 0
    assert file.read_bytes() == b"as packed"
    assert "is there already" in ctl("warmups", "export", "3fa9", str(file)).err
    daemon.packed = b""
    ended = ctl("warmups", "import", str(file))
    assert (ended.code, ended.out, daemon.packed) == (0, "3fa93fa93fa9\n", b"as packed")


def test_a_failed_export_leaves_no_file(daemon, ctl, tmp_path):
    daemon.refusals["GET /helios/v1/warmups/9"] = Refusal(404, "warmup_not_found", "cannot find the warm-up 9")
    assert ctl("warmups", "export", "9", str(tmp_path / "warm.tar")).code == 4
    assert list(tmp_path.iterdir()) == []
    assert "no such file" in ctl("warmups", "import", str(tmp_path / "none.tar")).err


def test_rm_says_what_was_forgotten(daemon, ctl):
    assert ctl("warmups", "rm", "3fa9").err == "forgotten: 3fa93fa93fa9, 1.0 MiB\n"
