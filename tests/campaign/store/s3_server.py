"""A server on this machine that speaks S3, which can be stopped and started, and counts what it is asked."""

import socket
import threading
import weakref
from collections import Counter
from contextlib import contextmanager, suppress
from typing import ClassVar

from moto import settings
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

FAULTS = ("reset", "lost", "head", "body", "flip", "busy", "garbage")
"""Spoilt answers: none and nothing done; none though it was done; cut in its headers; cut in its body; a bit
of its body flipped; an error of the server's; something that is no answer of S3."""


def spoilt(kind, status, headers, body):
    """Bytes of an answer with one thing wrong."""
    if kind == "lost":
        return b""
    if kind == "busy":
        return b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
    if kind == "garbage":
        return b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<html>Welcome"
    if kind == "flip" and body:
        place = len(body) // 2
        body = body[:place] + bytes([body[place] ^ 4]) + body[place + 1 :]
    lines = [f"{name}: {value}\r\n" for name, value in headers]
    if kind == "head" or (kind == "body" and not body):
        return f"HTTP/1.1 {status}\r\n{''.join(lines[:1])}".encode()
    head = f"HTTP/1.1 {status}\r\n{''.join(lines)}\r\n".encode()
    return head + (body[: len(body) // 2] if kind == "body" else body)


class Server:
    """Buckets outlive a stop, as they do in a real one."""

    def __init__(self):
        self._app = DomainDispatcherApplication(create_backend_app)
        self._one_at_a_time = threading.Lock()
        self._server = None
        self._thread = None
        self.port = 0
        self.asked = Counter()
        self.deaf = False
        """Whether it does not hear If-None-Match, as some servers."""
        self.fault = None
        """Called with method and path; one of FAULTS spoils the answer, an empty word leaves it."""
        self.before = None
        """Called with method and path before each request; True answers "SlowDown" instead."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def __call__(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.asked[method] += 1
        if self.before is not None and self.before(method, path):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"]
        if self.deaf:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        kind = self.fault(method, path) if self.fault else ""
        if kind == "reset":
            return self._send(environ, start_response, b"")
        # S3 decides on conditional writes one after the other; moto looks and writes in two steps
        with self._one_at_a_time:
            if not kind:
                return list(self._app(environ, start_response))
            said = []
            body = b"".join(self._app(environ, lambda status, headers, *_: said.extend((status, headers))))
        return self._send(environ, start_response, spoilt(kind, *said, body))

    def _send(self, environ, start_response, answer):
        connection = environ["werkzeug.socket"]
        with suppress(OSError):
            connection.sendall(answer)
            connection.shutdown(socket.SHUT_RDWR)
        start_response("200 OK", [])
        return []

    @contextmanager
    def strict(self):
        """Look at keys and signatures, and at what users are allowed."""
        settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
        try:
            yield
        finally:
            settings.INITIAL_NO_AUTH_ACTION_COUNT = float("inf")

    def start(self):
        self._server = make_server("127.0.0.1", self.port, self, True, request_handler=Quiet)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        # connections that are kept alive go as well
        for each in list(Quiet.connections):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class Quiet(MotoRequestHandler):
    connections: ClassVar = weakref.WeakSet()

    def setup(self):
        super().setup()
        self.connections.add(self.connection)

    def log_request(self, *args):
        pass

    def log_error(self, *args):
        pass
