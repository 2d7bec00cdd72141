"""What systemd hears, over a real datagram socket, and what is taken from it."""

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliosd.notify import Notifier, listen_sockets, watchdog_interval_s


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A service manager's socket and the address it tells the daemon."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        name = f"helios-test-{os.getpid()}-{time.monotonic_ns()}"
        heard.bind(f"\0{name}" if request.param == "abstract" else str(tmp_path / "notify"))
        heard.settimeout(5)
        yield heard, f"@{name}" if request.param == "abstract" else str(tmp_path / "notify")


def test_a_whole_life_is_heard(manager: tuple[socket.socket, str]) -> None:
    heard, address = manager
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": address})
    before_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.status("starting\nREADY=1")
    notifier.ready("serving on 127.0.0.1:8484")
    notifier.watchdog()
    notifier.reloading()
    notifier.ready()
    notifier.stopping(30, "draining")
    said = [heard.recv(4096).decode() for _ in range(6)]
    assert said[0] == "STATUS=starting READY=1"
    assert said[1] == "READY=1\nSTATUS=serving on 127.0.0.1:8484"
    assert said[2] == "WATCHDOG=1"
    reloading, _, stamp = said[3].partition("\nMONOTONIC_USEC=")
    assert reloading == "RELOADING=1"
    assert before_us <= int(stamp) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert said[4] == "READY=1"
    assert said[5] == "STOPPING=1\nEXTEND_TIMEOUT_USEC=30000000\nSTATUS=draining"
    notifier.close()


async def test_the_event_loop_beats(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.setblocking(False)
        loop = asyncio.get_running_loop()
        notifier = Notifier(str(tmp_path / "notify"), beat_s=0.01)
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            beating = tasks.create_task(notifier.beat())
            assert [await loop.sock_recv(heard, 100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            beating.cancel()
        notifier.close()


async def test_without_a_service_manager_nothing_happens() -> None:
    notifier = Notifier.from_environ({"WATCHDOG_USEC": "1000000"})
    notifier.ready()
    async with asyncio.timeout(5):
        await notifier.beat()
    notifier.close()


def test_a_lost_message_is_logged_and_harmless(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Notifier(str(tmp_path / "nobody")).ready()
    Notifier("vsock:2:1234").ready()
    assert [line.message for line in caplog.records] == ["notify lost", "notify socket ignored"]
    assert "No such file" in caplog.records[0].__dict__["reason"]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdogs_interval(environ: dict[str, str], expected: float | None) -> None:
    assert watchdog_interval_s(environ) == expected


def _pass_on(*sockets: socket.socket) -> int:
    """Put sockets at descriptors next to one another, as systemd does, and return the first."""
    first = 200
    for offset, each in enumerate(sockets):
        os.dup2(each.fileno(), first + offset)
    return first


def test_inherited_sockets_are_taken_over_by_kind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        socket.socket(socket.AF_UNIX) as unix,
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram,
        socket.create_server(("127.0.0.1", 0)) as tcp2,
        socket.socket(socket.AF_INET) as deaf,
    ):
        unix.bind(str(tmp_path / "s"))
        unix.listen()
        environ = {
            "LISTEN_FDS": "5",
            "LISTEN_PID": str(os.getpid()),
            "LISTEN_FDNAMES": "unix:tcp:x:y",
            "OTHER": "kept",
        }
        inherited = listen_sockets(environ, _pass_on(unix, datagram, tcp, deaf, tcp2))
        assert {name: each.getsockname() for name, each in inherited.items()} == {
            "unix": str(tmp_path / "s"),
            "tcp": tcp.getsockname(),
            "tcp2": tcp2.getsockname(),
        }
        assert not any(each.get_inheritable() for each in inherited.values())
        assert [line.message for line in caplog.records] == ["inherited descriptor ignored"] * 2
        assert environ == {"OTHER": "kept"}
        with socket.create_connection(tcp.getsockname()) as client:
            inherited["tcp"].setblocking(True)
            accepted, address = inherited["tcp"].accept()
            assert address == client.getsockname()
            accepted.close()
        for each in inherited.values():
            each.close()


def test_sockets_meant_for_another_process_are_not_touched() -> None:
    for environ in ({}, {"LISTEN_FDS": "1", "LISTEN_PID": "1"}, {"LISTEN_FDS": "x", "LISTEN_PID": str(os.getpid())}):
        assert listen_sockets(environ) == {}
