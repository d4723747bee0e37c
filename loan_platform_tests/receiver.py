"""A real HTTP receiver of alerts on loopback that can be down, come up, and refuse a message.

Here: the receiver that tests point Apprise's `json://` at. Not here: what is sent to it.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Message = dict[str, Any]


class HttpReceiver:
    """Collects the JSON messages posted to it. Down until `up()`; keeps its port while down."""

    def __init__(self) -> None:
        self.port = free_port()
        self.messages: list[Message] = []
        self.refuses: Callable[[Message], bool] = lambda _: False
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """As Apprise reads it; with a secret in the path, as real ones have."""
        return f"json://127.0.0.1:{self.port}/hook/s3cret-token"

    @property
    def titles(self) -> list[str]:
        return [str(message["title"]) for message in self.messages]

    @property
    def keys(self) -> list[str]:
        """The key each message carries in its last line."""
        return [str(message["message"]).splitlines()[-1] for message in self.messages]

    def up(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                refused = receiver.refuses(message)
                if not refused:
                    receiver.messages.append(message)
                self.send_response(400 if refused else 200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name)
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@contextlib.contextmanager
def http_receiver(*, up: bool = True) -> Iterator[HttpReceiver]:
    receiver = HttpReceiver()
    if up:
        receiver.up()
    try:
        yield receiver
    finally:
        receiver.down()


def free_port() -> int:
    """A loopback port nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
