import asyncio
import gzip
import socket

import aiohttp
import pytest
from aiohttp import web

from heliosd.cluster.forward import forward
from heliosd.core.names import PeerName
from heliosd.errors import SourceFailed, Unavailable
from tests.cluster.nodes import WITHIN_S, Watched, peer, request, serving


async def passed(url, asked, reply):
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        await forward(session, peer("b", api_url=url), asked, reply, me=PeerName("a"), token="h1.token")


async def test_the_request_arrives_as_the_client_sent_it_without_the_clients_secrets():
    seen = {}

    async def answer(got):
        seen.update(method=got.method, target=got.raw_path, headers=got.headers, body=await got.read())
        return web.Response(text="ok")

    asked = request(
        "/v1/a%2Fb/%C3%A9",
        "x=%20y&z=a+b",
        b'{"model": "m"}',
        content_type="application/json",
        Authorization="Bearer secret",
        X_Api_Key="secret",
        cookie="secret",
        connection="close, x-hop",
        x_hop="1",
        te="trailers",
        host="client.example",
        x_helios_forwarded="liar",
        x_helios_peer="liar",
        x_custom="kept",
        user_agent="curl",
    )
    async with serving(answer) as url:
        await passed(url, asked, Watched())
    assert (seen["method"], seen["target"], seen["body"]) == (
        "POST",
        "/v1/a%2Fb/%C3%A9?x=%20y&z=a+b",
        b'{"model": "m"}',
    )
    headers = seen["headers"]
    assert headers.getall("x-helios-forwarded") == ["a"]
    assert headers.getall("x-helios-peer") == ["h1.token"]
    assert headers["x-request-id"] == "t1"
    assert (headers["content-type"], headers["x-custom"], headers["user-agent"]) == ("application/json", "kept", "curl")
    assert headers["host"] == url.removeprefix("http://")
    assert not {"authorization", "x-api-key", "cookie", "x-hop", "te"} & {name.lower() for name in headers}
    assert "secret" not in str(headers)


async def test_status_headers_and_bytes_come_back_as_the_peer_sent_them():
    body = gzip.compress(b"hello" * 100)

    async def answer(got):
        await got.read()
        headers = {"content-encoding": "gzip", "retry-after": "3", "x-request-id": "the peer's", "set-cookie": "a=b"}
        return web.Response(status=429, body=body, headers=headers)

    reply = Watched()
    async with serving(answer) as url:
        await passed(url, request(), reply)
    assert reply.status == 429
    assert (reply.headers["content-encoding"], reply.headers["retry-after"]) == ("gzip", "3")
    assert reply.headers["content-length"] == str(len(body))
    assert reply.headers["x-helios-served-by"] == "b"
    assert not {"x-request-id", "set-cookie", "connection", "date", "server"} & reply.headers.keys()
    assert reply.rest() == body


async def test_each_chunk_is_passed_on_before_the_peer_makes_the_next():
    go_on = asyncio.Semaphore(0)

    async def answer(got):
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(got)
        for number in range(5):
            await response.write(f"data: {number}\n\n".encode())
            await go_on.acquire()
        return response

    reply = Watched()
    async with serving(answer) as url, asyncio.TaskGroup() as tasks:
        tasks.create_task(passed(url, request(), reply))
        for number in range(5):
            # The peer does not write the next chunk before this one was seen here.
            assert await reply.next() == f"data: {number}\n\n".encode()
            go_on.release()
    assert reply.headers["content-type"] == "text/event-stream"
    assert reply.chunks.empty()


@pytest.mark.parametrize("started", [True, False], ids=["while it streams", "before it answers"])
async def test_a_client_that_goes_away_is_noticed_by_the_peer_at_once(started):
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def answer(got):
        try:
            if started:
                response = web.StreamResponse()
                await response.prepare(got)
                await response.write(b"first")
            arrived.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            gone.set()
            raise

    reply = Watched()
    async with serving(answer) as url, asyncio.TaskGroup() as tasks, asyncio.timeout(WITHIN_S):
        passing = tasks.create_task(passed(url, request(), reply))
        await arrived.wait()
        if started:
            assert await reply.next() == b"first"
        passing.cancel()
        await gone.wait()
    assert passing.cancelled()


async def test_a_client_that_cannot_be_written_to_ends_the_request_on_the_peer():
    gone = asyncio.Event()

    async def answer(got):
        response = web.StreamResponse()
        await response.prepare(got)
        try:
            await response.write(b"first")
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            gone.set()
            raise

    class Broken(Watched):
        async def write(self, chunk):
            raise ConnectionResetError("the client went away")

    async with serving(answer) as url:
        with pytest.raises(ConnectionResetError, match="the client went away"):
            await passed(url, request(), Broken())
        async with asyncio.timeout(WITHIN_S):
            await gone.wait()


async def test_a_peer_that_cannot_be_reached_is_unavailable_with_the_cause():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port, and it refuses
        reply = Watched()
        with pytest.raises(Unavailable, match="cannot reach node b") as failure:
            await passed(f"http://127.0.0.1:{taken.getsockname()[1]}", request(), reply)
    assert failure.value.code == "peer_unreachable"
    assert "refused" in failure.value.cause or "Cannot connect" in failure.value.cause
    assert reply.status is None


async def test_a_peer_that_hangs_up_before_it_answers_is_unavailable():
    async def answer(got):
        got.transport.abort()
        await asyncio.Event().wait()

    async with serving(answer) as url:
        with pytest.raises(Unavailable) as failure:
            await passed(url, request(), Watched())
    assert failure.value.cause


async def test_an_answer_that_breaks_off_is_told_from_one_that_ended():
    async def answer(got):
        response = web.StreamResponse()
        await response.prepare(got)
        await response.write(b"first")
        got.transport.abort()
        await asyncio.Event().wait()

    reply = Watched()
    async with serving(answer) as url:
        with pytest.raises(SourceFailed, match="the connection to node b broke"):
            await passed(url, request(), reply)
    assert reply.rest() == b"first"


async def test_a_refused_token_is_not_shown_as_the_clients_own_fault():
    async def answer(got):
        return web.json_response({"error": {"message": "clock"}}, status=401)

    reply = Watched()
    async with serving(answer) as url:
        with pytest.raises(Unavailable, match="clocks") as failure:
            await passed(url, request(), reply)
    assert failure.value.code == "peer_refused"
    assert "clock" in failure.value.cause
    assert reply.status is None


async def test_redirections_are_the_clients_to_follow():
    async def answer(got):
        return web.Response(status=307, headers={"location": "http://127.0.0.1:1/"})

    reply = Watched()
    async with serving(answer) as url:
        await passed(url, request(), reply)
    assert (reply.status, reply.headers["location"]) == (307, "http://127.0.0.1:1/")
