"""Who may do what, over TCP and over the Unix socket."""

import asyncio
import os
import subprocess
import sys

import pytest

from heliosd.api.app import AUTH
from tests.api.world import World, world

CHAT = {"model": "tiny", "messages": []}
ADMIN = "/helios/v1/node"


async def status(it: World, path: str, *, key: str | None = None, header: str = "Authorization") -> tuple[int, str]:
    """The status and, for an error, its code."""
    headers = {} if key is None else {header: f"Bearer {key}" if header == "Authorization" else key}
    ask = it.http.post(path, json=CHAT, headers=headers) if "chat" in path else it.http.get(path, headers=headers)
    async with ask as response:
        if response.status < 400:
            return response.status, ""
        return response.status, (await response.json())["error"]["code"]


async def test_without_keys_this_machine_may_use_models_and_not_administer(it: World) -> None:
    assert await status(it, "/v1/chat/completions") == (200, "")
    assert await status(it, "/v1/chat/completions", key="whatever clients send") == (200, "")
    assert await status(it, "/v1/models") == (200, "")
    assert await status(it, ADMIN) == (401, "missing_api_key")
    assert await status(it, ADMIN, key="hk-wrong") == (401, "invalid_api_key")


async def test_from_the_first_key_on_a_key_is_needed(it: World) -> None:
    _, user = await it.keys.add("user", admin=False)
    _, admin = await it.keys.add("admin", admin=True)
    assert await status(it, "/v1/chat/completions") == (401, "missing_api_key")
    assert await status(it, "/v1/chat/completions", key="hk-wrong") == (401, "invalid_api_key")
    assert await status(it, "/v1/chat/completions", key=user) == (200, "")
    assert await status(it, "/v1/chat/completions", key=user, header="x-api-key") == (200, "")
    assert await status(it, "/v1/chat/completions", key=admin) == (200, "")
    assert await status(it, ADMIN, key=user) == (403, "admin_key_needed")
    assert await status(it, ADMIN, key=admin) == (200, "")
    await it.keys.remove("user")
    assert await status(it, "/v1/chat/completions", key=user) == (401, "invalid_api_key")


async def test_beyond_loopback_a_key_is_always_needed() -> None:
    async with world(host="0.0.0.0") as it:
        assert await status(it, "/v1/chat/completions") == (401, "missing_api_key")
        _, user = await it.keys.add("user", admin=False)
        assert await status(it, "/v1/chat/completions", key=user) == (200, "")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json"])
async def test_probes_are_open(path: str) -> None:
    async with world(host="0.0.0.0") as it:
        await it.keys.add("user", admin=False)
        assert await status(it, path) == (200, "")


async def test_a_401_says_how_to_authenticate(it: World) -> None:
    async with it.http.get(ADMIN) as response:
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert "heliosctl keys add" in (await response.json())["error"]["message"]


async def test_below_messages_refusals_have_anthropics_shape() -> None:
    async with world(host="0.0.0.0") as it, it.http.post("/v1/messages", json=CHAT) as response:
        body = await response.json()
    assert (response.status, body["type"], body["error"]["type"]) == (401, "error", "authentication_error")


async def test_the_daemons_own_user_may_do_everything_on_the_unix_socket(it: World) -> None:
    await it.keys.add("some", admin=True)
    async with it.local.get(ADMIN) as response:
        assert response.status == 200
    async with it.local.post("/v1/chat/completions", json=CHAT) as response:
        assert response.status == 200


_AS_NOBODY = """
import os, socket, sys
os.setgroups([int(g) for g in sys.argv[2].split(",") if g]); os.setgid(65534); os.setuid(65534)
with socket.socket(socket.AF_UNIX) as s:
    s.connect(sys.argv[1])
    s.sendall(b"GET /helios/v1/node HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
    print(s.makefile().read())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
@pytest.mark.parametrize(("groups", "expected"), [("", 403), ("4242", 200), ("7,4242,8", 200), ("7,8", 403)])
async def test_others_need_the_group(it: World, groups: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    app = it.listening.runner.app
    monkeypatch.setattr(app[AUTH], "_admin_gid", 4242)
    assert it.listening.socket_path is not None
    it.listening.socket_path.chmod(0o666)
    it.listening.socket_path.parent.chmod(0o755)
    said = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", _AS_NOBODY, str(it.listening.socket_path), groups],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.startswith(f"HTTP/1.1 {expected} ")


async def test_peers_may_list_and_use_models_and_nothing_else(it: World) -> None:
    await it.keys.add("some", admin=True)
    peer = {"x-helios-peer": "good"}
    async with it.http.get("/helios/v1/models?local=1", headers=peer) as response:
        assert [model["ref"] for model in (await response.json())["models"]] == ["tiny", "org/other"]
    async with it.http.post("/v1/chat/completions", json=CHAT, headers=peer) as response:
        assert response.status == 200
    async with it.http.get("/helios/v1/keys", headers=peer) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (403, "not_allowed")
    async with it.http.get("/helios/v1/models?local=1", headers={"x-helios-peer": "bad"}) as response:
        assert response.status == 401
    assert it.peers.verified[0] == ("GET", "/helios/v1/models?local=1")


async def test_a_request_that_says_it_was_forwarded_is_not_forwarded_again(it: World) -> None:
    async with it.http.post("/v1/chat/completions", json=CHAT, headers={"x-helios-forwarded": "east"}) as response:
        assert response.status == 200
    assert [forwarded for _, _, forwarded in it.node.leases] == [True]


async def under(it: World, host: str, path: str = "/v1/chat/completions", **headers: str) -> tuple[int, str]:
    """Ask for a host by name, as a browser does that was told the name has this machine's address."""
    sent = headers | {"Host": host}
    ask = it.http.post(path, json=CHAT, headers=sent) if "chat" in path else it.http.get(path, headers=sent)
    async with ask as response:
        return response.status, "" if response.status < 400 else (await response.json())["error"]["code"]


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost:8484", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8484", "gpu.lan:8484", "GPU.lan."],
)
async def test_without_a_key_this_node_answers_to_its_own_names(host: str) -> None:
    async with world(hosts=frozenset({"gpu.lan"})) as it:
        assert await under(it, host) == (200, "")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8484", "localhost.evil.example", "10.0.0.1", "[::2]", "["]
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/metrics"])
async def test_a_page_that_calls_its_own_name_this_machine_gets_nothing(it: World, host: str, path: str) -> None:
    assert await under(it, host, path) == (403, "host_not_allowed")
    assert it.node.leases == []


async def test_a_key_or_a_peers_token_lifts_that(it: World) -> None:
    _, secret = await it.keys.add("user", admin=False)
    assert await under(it, "proxy.example", Authorization=f"Bearer {secret}") == (200, "")
    assert await under(it, "proxy.example", "/metrics", **{"x-api-key": secret}) == (200, "")
    assert await under(it, "proxy.example", Authorization="Bearer hk-wrong") == (403, "host_not_allowed")
    assert await under(it, "proxy.example", **{"x-helios-peer": "good"}) == (200, "")


async def test_beyond_loopback_and_on_the_unix_socket_any_name_will_do(it: World) -> None:
    async with it.local.get("/v1/models", headers={"Host": "evil.example"}) as response:
        assert response.status == 200
    async with world(host="0.0.0.0") as open_to_all:
        assert await under(open_to_all, "any.example") == (401, "missing_api_key")
        assert await under(open_to_all, "any.example", "/healthz") == (200, "")
