"""An address on the loopback that receives notifications, or misbehaves as addresses do."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET_PATH = "/services/T0/B0/do-not-show"


class MessageSink:
    """What came in, and where to send it; `behaviour` says how the next one is answered.

    ok          204
    error       500, with a body that nobody should repeat
    web_page    200 and HTML, as a login page in between
    redirect    302 to another path of this sink
    silent      nothing, until the sink ends
    endless     200 and a body that does not end until the sink does
    """

    def __init__(self) -> None:
        self.behaviour = "ok"
        self.received: list[tuple[str, dict[str, object]]] = []
        self.ended = threading.Event()
        self.port = 0

    @property
    def address(self) -> str:
        return f"http://someone:pa55word@127.0.0.1:{self.port}{SECRET_PATH}"


class Handler(BaseHTTPRequestHandler):
    """Answers as the sink of its server says."""

    server: "Server"

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self._take(json.loads(self.rfile.read(length)))
        getattr(self, f"_{self.server.sink.behaviour}")()

    def do_GET(self) -> None:
        self._take({})
        self._ok()

    def _take(self, body: dict[str, object]) -> None:
        self.server.sink.received.append((self.path, body))

    def _ok(self) -> None:
        self.send_response(204)
        self.end_headers()

    def _error(self) -> None:
        self._say(500, "text/plain")

    def _web_page(self) -> None:
        self._say(200, "text/html; charset=utf-8")

    def _redirect(self) -> None:
        self.send_response(302)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _silent(self) -> None:
        self.server.sink.ended.wait()

    def _endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while not self.server.sink.ended.wait(0.01):
                self.wfile.write(b"and so on ")
        except ConnectionError:
            self.close_connection = True

    def _say(self, status: int, kind: str) -> None:
        body = b"<b>the body of the answer</b>"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, sink: MessageSink) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.sink = sink


@contextmanager
def receiving() -> Iterator[MessageSink]:
    """Run a sink on a free port for a while."""
    sink = MessageSink()
    server = Server(sink)
    sink.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield sink
    finally:
        sink.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
