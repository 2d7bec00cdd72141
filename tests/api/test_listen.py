"""Sockets: made, inherited, cleaned up, and refused with words that help."""

import socket
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from heliosd.api.app import AUTH
from heliosd.api.auth import Auth
from heliosd.api.listen import listen
from heliosd.errors import ConfigError, HeliosError
from heliosd.state.keys import Keys
from tests.api.world import World, world


def small_app() -> web.Application:
    async def hello(request: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app[AUTH] = Auth(Keys(None), None, admin_group="helios")  # type: ignore[arg-type]
    app.router.add_get("/", hello)
    return app


async def hello(connector: aiohttp.BaseConnector | None, url: str) -> str:
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as response:
        return await response.text()


@pytest.fixture
def short_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("s") / "d" / "s.sock"
    assert len(str(path)) < 100
    return path


async def test_only_members_of_the_group_may_open_the_unix_socket(short_path: Path) -> None:
    listening = await listen(small_app(), host=None, port=0, socket_path=short_path)
    assert short_path.stat().st_mode & 0o777 == 0o660
    assert await hello(aiohttp.UnixConnector(str(short_path)), "http://unix/") == "hello"
    assert listening.port is None
    await listening.close()
    assert not short_path.exists()


async def test_what_a_killed_daemon_left_is_replaced(short_path: Path) -> None:
    short_path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(short_path))
    listening = await listen(small_app(), host=None, port=0, socket_path=short_path)
    assert await hello(aiohttp.UnixConnector(str(short_path)), "http://unix/") == "hello"
    await listening.close()


async def test_a_socket_that_answers_is_left_alone(short_path: Path) -> None:
    first = await listen(small_app(), host=None, port=0, socket_path=short_path)
    with pytest.raises(HeliosError, match="another heliosd answers there") as caught:
        await listen(small_app(), host=None, port=0, socket_path=short_path)
    assert caught.value.code == "already_running"
    assert await hello(aiohttp.UnixConnector(str(short_path)), "http://unix/") == "hello"
    await first.close()


async def test_a_file_in_the_way_is_left_alone(short_path: Path) -> None:
    short_path.parent.mkdir()
    short_path.write_text("precious")
    with pytest.raises(ConfigError, match="a file is there that is no socket"):
        await listen(small_app(), host=None, port=0, socket_path=short_path)
    assert short_path.read_text() == "precious"


async def test_a_port_that_is_taken() -> None:
    first = await listen(small_app(), host="127.0.0.1", port=0, socket_path=None)
    assert first.port is not None
    with pytest.raises(ConfigError, match=rf"cannot listen on 127\.0\.0\.1:{first.port}: .*; stop what listens there"):
        await listen(small_app(), host="127.0.0.1", port=first.port, socket_path=None)
    await first.close()


async def test_an_address_of_another_machine() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1"):
        await listen(small_app(), host="192.0.2.1", port=0, socket_path=None)


async def test_inherited_sockets_take_the_place_of_configured_ones(short_path: Path) -> None:
    tcp = socket.create_server(("127.0.0.1", 0))
    port = tcp.getsockname()[1]
    listening = await listen(small_app(), host="192.0.2.1", port=1, socket_path=short_path, inherited={"http": tcp})
    assert listening.port == port
    assert await hello(None, f"http://127.0.0.1:{port}/") == "hello"
    assert await hello(aiohttp.UnixConnector(str(short_path)), "http://unix/") == "hello"
    await listening.close()


async def test_an_inherited_unix_socket_is_not_removed(short_path: Path) -> None:
    short_path.parent.mkdir()
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(short_path))
    unix.listen()
    listening = await listen(small_app(), host=None, port=0, socket_path=None, inherited={"local": unix})
    assert await hello(aiohttp.UnixConnector(str(short_path)), "http://unix/") == "hello"
    await listening.close()
    assert short_path.exists()


@pytest.mark.parametrize(("host", "exposed"), [("127.0.0.1", False), ("0.0.0.0", True), ("localhost", False)])
async def test_exposed_is_what_other_machines_can_reach(host: str, exposed: bool) -> None:
    app = small_app()
    listening = await listen(app, host=host, port=0, socket_path=None)
    assert app[AUTH].exposed is exposed
    await listening.close()


async def test_both_doors_lead_to_the_same_place() -> None:
    async with world() as it:
        await both(it)


async def both(it: World) -> None:
    async with it.http.get("/v1/models") as over_tcp, it.local.get("/v1/models") as over_unix:
        assert await over_tcp.json() == await over_unix.json()
