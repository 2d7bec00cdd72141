"""A client that stops reading is cut off, one that only reads slowly is not."""

import asyncio
import json
import socket

from heliosd.api.stall import StallWatch
from heliosd.engines.engine import Reply, Request
from tests.api.world import World, world

CHAT = json.dumps({"model": "tiny", "messages": []}).encode()
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


async def ask(it: World) -> socket.socket:
    """A client with a small window, that has asked and read nothing."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", it.listening.port))
    await loop.sock_sendall(client, HEAD + b"Content-Length: %d\r\n\r\n" % len(CHAT) + CHAT)
    return client


async def test_a_client_that_stops_reading_loses_its_lease() -> None:
    async def answer(request: Request, reply: Reply) -> None:
        await reply.start(200, [("content-type", "text/event-stream")])
        while True:
            await reply.write(b"data: " + b"x" * 1000 + b"\n\n")

    async with world(stalled_s=0.05) as it:
        it.engine.answer = answer
        with await ask(it):
            await asyncio.wait_for(it.node.release.wait(), 10)
    assert len(it.node.released) == 1


async def test_writes_may_take_long_together_while_each_goes_on() -> None:
    cut = asyncio.Event()
    watch = StallWatch(cut.set, 0.2)
    for _ in range(15):
        with watch:
            await asyncio.sleep(0.02)
    watch.close()
    assert not cut.is_set()


async def test_the_watch_lets_an_engine_think_and_ends_with_the_answer() -> None:
    cut = asyncio.Event()
    watch = StallWatch(cut.set, 0.02)
    await asyncio.sleep(0.06)  # nothing is being written
    assert not cut.is_set()
    with watch:
        await asyncio.wait_for(cut.wait(), 5)
    cut.clear()
    second = StallWatch(cut.set, 0.02)
    with second:
        second.close()
        await asyncio.sleep(0.06)
    assert not cut.is_set()
