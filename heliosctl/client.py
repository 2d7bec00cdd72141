"""Talks HTTP to one daemon, over its Unix socket or TCP. Knows paths and errors, not what bodies mean.

It stands on http.client alone, because a command line tool is started often and lives briefly.
"""

import http.client
import io
import json
import os
import socket
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any
from urllib.parse import quote, urlencode, urlsplit

from heliosctl.changing import Change, Planned, change_of
from heliosctl.exits import Exit, Failure, exit_for
from heliosctl.place import Place, TcpPlace, UnixPlace, find_place
from heliosctl.sse import SseEvent, SseParser

CONNECT_TIMEOUT_S = 5.0
Query = Mapping[str, str | int | None]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """One connection per call, closed when the call's answer is read or abandoned."""

    def __init__(self, place: Place, change: Change | None = None) -> None:
        """`change`: how whatever changes something is asked for."""
        self.place = place
        self._change = change or Change()

    def get(self, path: str, query: Query | None = None) -> Any:
        """Return the JSON at `path`. Raises Failure."""
        return self.call("GET", path, query=query)

    def call(self, method: str, path: str, body: object = None, *, query: Query | None = None) -> Any:
        """Ask and return the JSON answered. Waits as long as the daemon does. Raises Failure."""
        with self._response(method, path, body, query) as response:
            return self._json(response, method, path)

    @contextmanager
    def stream(self, method: str, path: str, body: object = None, *, query: Query | None = None) -> Iterator["Stream"]:
        """Ask for server-sent events. Leaving the block closes the connection, which tells the daemon to stop."""
        with self._response(method, path, body, query) as response:
            yield Stream(response.getheader("x-request-id"), self._chunks(response, method, path))

    def lines(self, path: str, query: Query | None = None) -> Iterator[str]:
        """Yield a text's lines as they come."""
        with self._response("GET", path, None, query) as response:
            rest = b""
            for chunk in self._chunks(response, "GET", path):
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    yield line.decode(errors="replace")
            if rest:
                yield rest.decode(errors="replace")

    def download(self, path: str, out: IO[bytes]) -> None:
        """Write the bytes at `path` to a file. Raises Failure."""
        with self._response("GET", path, None, None) as response:
            length, written = response.getheader("content-length"), 0
            for chunk in self._chunks(response, "GET", path):
                written += out.write(chunk)
        if length is not None and written != int(length):
            raise Failure(f"cannot finish GET {path}: {written} of {length} bytes came", Exit.UNREACHABLE)

    def upload(self, path: str, content: IO[bytes]) -> Any:
        """Post a file's bytes and return the JSON answered. Raises Failure."""
        with self._response("POST", path, content, None) as response:
            return self._json(response, "POST", path)

    def _json(self, response: http.client.HTTPResponse, method: str, path: str) -> Any:
        with self._reading(method, path):
            text = response.read()
        try:
            return json.loads(text or b"null")
        except ValueError as error:
            raise Failure(f"cannot read the answer to {method} {path}: it is no JSON") from error

    @contextmanager
    def _response(
        self, method: str, path: str, body: object, query: Query | None
    ) -> Iterator[http.client.HTTPResponse]:
        connection, base = self._connection()
        if self._change.dry_run and method != "GET":
            query = {**(query or {}), "dry_run": "true"}
        given = {name: value for name, value in (query or {}).items() if value is not None}
        target = base + path + (f"?{urlencode(given)}" if given else "")
        headers = {"accept": "application/json, text/event-stream, text/plain"}
        if isinstance(self.place, TcpPlace) and self.place.key:
            headers["authorization"] = f"Bearer {self.place.key}"
        if method != "GET":
            headers |= self._change.headers() if "dry_run" not in given else {}
        payload: bytes | io.BufferedIOBase | None = None
        if isinstance(body, io.BufferedIOBase):
            payload = body
            headers["content-type"] = "application/octet-stream"
        elif body is not None:
            payload = json.dumps(body).encode()
            headers["content-type"] = "application/json"
        try:
            try:
                connection.connect()
            except OSError as error:
                raise unreachable(self.place, error) from error
            with self._reading(method, path):
                connection.sock.settimeout(None)  # a load or a long queue may take minutes, and is an answer too
                connection.request(method, target, payload, headers)
                response = connection.getresponse()
                refusal = response.read() if response.status >= 400 else None
            if refusal is not None:
                raise failure_from(refusal, response.status)
            if "dry_run" in given:
                raise Planned(self._json(response, method, path))
            yield response
        finally:
            connection.close()

    @contextmanager
    def _reading(self, method: str, path: str) -> Iterator[None]:
        """Around what the daemon may break off; not around what is done with its answer, such as printing."""
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            raise Failure(
                f"cannot finish {method} {path}: heliosd at {self.place} broke off ({_words(error)}). "
                "`heliosctl doctor` tells whether it still runs",
                Exit.UNREACHABLE,
            ) from error

    def _chunks(self, response: http.client.HTTPResponse, method: str, path: str) -> Iterator[bytes]:
        while True:
            with self._reading(method, path):
                chunk = response.read1(65536)
            if not chunk:
                return
            yield chunk

    def _connection(self) -> tuple[http.client.HTTPConnection, str]:
        match self.place:
            case UnixPlace(path):
                return _UnixConnection(str(path), CONNECT_TIMEOUT_S), ""
            case TcpPlace(url, _):
                parts = urlsplit(url)
                kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
                return kind(parts.netloc, timeout=CONNECT_TIMEOUT_S), parts.path


class Stream:
    """Server-sent events of one answer."""

    def __init__(self, ticket: str | None, chunks: Iterator[bytes]) -> None:
        self.ticket = ticket
        self.comment: Callable[[str], None] = lambda text: None
        """Hears the stream's comments."""
        self._chunks = chunks

    def __iter__(self) -> Iterator[SseEvent]:
        parser = SseParser(self.comment)
        for chunk in self._chunks:
            yield from parser.feed(chunk)


def connect(args: Namespace) -> Client:
    """The client for what the command line and the environment say. Raises Failure."""
    return Client(find_place(args.socket, args.url, args.key, os.environ), change_of(args))


def quoted(ref: str) -> str:
    """A model ref as part of a path; the slash stays, as the daemon matches it."""
    return quote(ref, safe="/@:")


def failure_from(body: bytes | str, status: int | None) -> Failure:
    """Turn an ErrorBody (or whatever came instead of one) into what to tell the person."""
    try:
        error = json.loads(body)["error"]
        message, code, cause = str(error["message"]), error.get("code"), error.get("cause")
    except (ValueError, KeyError, TypeError, AttributeError):
        text = body.decode(errors="replace") if isinstance(body, bytes) else body
        said = f"cannot understand the answer {status or ''}".rstrip()
        return Failure(
            f"{said}: {text.strip()[:500] or 'it is empty'}. Something else may listen there; look at --url",
            exit_for(None, status),
            status=status,
        )
    return Failure(message, exit_for(code, status), cause=cause, status=status)


def unreachable(place: Place, error: OSError) -> Failure:
    """What to do when no connection comes about."""
    if isinstance(error, PermissionError):
        return Failure(
            f"cannot use the socket {place}: permission denied. Become a member of the group `helios` "
            "(`usermod -aG helios $USER`, then log in again), or use --url with a key",
            Exit.NOT_ALLOWED,
        )
    return Failure(
        f"cannot reach heliosd at {place}: {_words(error)}. Start it with `heliosd` (or `systemctl start heliosd`), "
        "or say where it is with --socket or --url",
        Exit.UNREACHABLE,
    )


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
