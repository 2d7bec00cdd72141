import signal
import subprocess
import sys

from heliosctl.exits import Exit


def command(socket_path, *words: str) -> list[str]:
    return [sys.executable, "-m", "heliosctl", "--socket", str(socket_path), *words]


def test_ctrl_c_ends_with_130(daemon, socket_path):
    daemon.note("start", "first")
    words = command(socket_path, "events", "-f")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert "first" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert process.returncode == Exit.INTERRUPTED
    assert "Traceback" not in err


def test_a_reader_that_has_enough_is_no_error(daemon, socket_path):
    words = command(socket_path, "logs", "-n", "200000")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "daemon line 0\n"
        process.stdout.close()
        assert (process.wait(10), process.stderr.read()) == (0, "")
