import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from aiohttp import web

from heliosctl.client import Client, failure_from
from heliosctl.exits import Exit, Failure
from heliosctl.place import TcpPlace, UnixPlace, find_place, usual_sockets
from tests.heliosctl.stand_in import StandIn, serving_from_a_thread
from tests.heliosctl.stand_in_replies import Refusal


@pytest.mark.parametrize(
    ("status", "code", "wanted"),
    [
        (404, "model_not_found", 4),
        (404, "whatever", 4),
        (401, "invalid_api_key", 5),
        (403, "not_allowed", 5),
        (422, "model_cannot_fit", 6),
        (503, "draining", 7),
        (429, "queue_full", 7),
        (502, "engine_failed", 1),
        (400, "bad_request", 1),
        (500, "internal_error", 1),
    ],
)
def test_each_kind_of_refusal_has_its_exit_code(daemon, ctl, status, code, wanted):
    daemon.refusals["POST /helios/v1/replicas"] = Refusal(status, code, "cannot do it: 2 GiB short", "why")
    ended = ctl("load", "org/small")
    assert (ended.code, ended.out) == (wanted, "")
    assert ended.err == "heliosctl: cannot do it: 2 GiB short\ncause: why\n"


def test_an_answer_that_is_no_error_body_is_shown_as_it_is():
    failure = failure_from(b"<html>gateway</html>", 503)
    assert failure.exit_code is Exit.UNAVAILABLE
    assert failure.message.startswith("cannot understand the answer 503: <html>gateway</html>. ")


def test_no_daemon_is_told_with_what_to_do(ctl, socket_path):
    ended = ctl("ls")
    assert ended.code == 3
    assert str(socket_path) in ended.err
    assert "systemctl start heliosd" in ended.err


def test_a_socket_nobody_listens_on(ctl, socket_path):
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(socket_path))
    ended = ctl("ls")
    assert ended.code == 3
    assert "connection refused" in ended.err


def test_a_daemon_that_breaks_off(ctl, socket_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path))
        listener.listen()

        def break_off() -> None:
            connection, _ = listener.accept()
            connection.recv(100)
            connection.close()

        thread = threading.Thread(target=break_off)
        thread.start()
        ended = ctl("ls")
        thread.join(5)
    assert ended.code == 3
    assert "broke off" in ended.err


def test_a_forbidden_socket_names_the_group(monkeypatch):
    from heliosctl.client import unreachable

    failure = unreachable(UnixPlace(usual_sockets({})[0]), PermissionError(13, "Permission denied"))
    assert failure.exit_code is Exit.NOT_ALLOWED
    assert "group `helios`" in failure.message


async def test_over_tcp_the_key_goes_along():
    import asyncio

    async def handler(request: web.Request) -> web.Response:
        return web.json_response({"models": [], "key": request.headers.get("authorization"), "path": request.path})

    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        client = Client(TcpPlace(f"http://127.0.0.1:{port}/base", "sesame"))
        body = await asyncio.to_thread(client.get, "/helios/v1/models")
    finally:
        await runner.cleanup()
    assert body == {"models": [], "key": "Bearer sesame", "path": "/base/helios/v1/models"}


def test_a_flag_goes_before_the_environment_and_that_before_the_usual_places(tmp_path):
    state = tmp_path / "state" / "helios" / "heliosd.sock"
    runtime = tmp_path / "run" / "helios" / "heliosd.sock"
    env = {"XDG_RUNTIME_DIR": str(tmp_path / "run"), "XDG_STATE_HOME": str(tmp_path / "state")}
    with pytest.raises(Failure) as told:
        find_place(None, None, None, env)
    assert told.value.exit_code is Exit.UNREACHABLE
    for place in (state, runtime):  # the later made is looked at earlier
        place.parent.mkdir(parents=True)
        place.touch()
        assert find_place(None, None, None, env) == UnixPlace(place)
    env["HELIOS_URL"] = "http://other:8484/"
    env["HELIOS_KEY"] = "k"
    assert find_place(None, None, None, env) == TcpPlace("http://other:8484", "k")
    env["HELIOS_SOCKET"] = "/there"
    assert str(find_place(None, None, None, env)) == "/there"
    assert find_place(None, "https://flag", "mine", env) == TcpPlace("https://flag", "mine")
    assert str(find_place("/flag", None, None, env)) == "/flag"


def test_a_url_without_a_scheme_is_a_usage_error(ctl):
    with pytest.raises(Failure) as told:
        find_place(None, "host:8484", None, {})
    assert told.value.exit_code is Exit.USAGE


def test_a_reader_that_has_enough_is_no_fault_of_the_daemon(socket_path):
    stand_in = StandIn()
    stand_in.note("start", "first")
    words = [sys.executable, "-m", "heliosctl", "--socket", str(socket_path), "events", "-f"]
    with serving_from_a_thread(stand_in, socket_path) as on_loop:
        child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with child:
            assert "first" in child.stdout.readline()
            child.stdout.close()
            deadline = time.monotonic() + 10
            while child.poll() is None and time.monotonic() < deadline:
                on_loop(lambda: stand_in.note("grant", "more"))  # it finds out when there is more to say
                time.sleep(0.01)
            assert (child.poll(), child.stderr.read()) == (0, "")


def test_an_output_that_cannot_be_written_is_told(daemon, socket_path):
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-m", "heliosctl", "--socket", str(socket_path), "ls"]
        ended = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, "heliosctl: cannot go on: No space left on device\n")


@pytest.mark.parametrize(
    ("code", "wanted"),
    [("repository_not_found", 4), ("gated_model", 5), ("disk_full", 7), ("hub_unreachable", 1), ("from the future", 1)],
)
def test_a_pull_that_fails_in_the_middle_of_its_stream_has_its_exit_code(daemon, ctl, code, wanted):
    daemon.add_error = Refusal(200, code, "cannot fetch org/small")
    ended = ctl("pull", "org/small")
    assert (ended.code, ended.out, ended.err.splitlines()[-1]) == (wanted, "", "heliosctl: cannot fetch org/small")
