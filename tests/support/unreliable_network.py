"""A way to a server that a test can break: refuse, answer 500, never answer, lose the answer."""

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

WHOLE, REFUSING, FAILING, SILENT, LOSING = "whole", "refusing", "failing", "silent", "losing"
ANSWER_500 = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\nConnection: close\r\n\r\noops"
)


class Network:
    """Passes connections on to a port; `state` says how."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._state = WHOLE
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def state(self):
        return self._state

    @state.setter
    def state(self, state):
        """Change it, also for those who are connected."""
        self._state = state
        for one in tuple(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.state = REFUSING
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with client, suppress(OSError):
            self._open.add(client)
            try:
                self._treat(client)
            finally:
                self._open.discard(client)

    def _treat(self, client):
        state = self._state
        if state == REFUSING:
            return
        if state == FAILING:
            if client.recv(1 << 16):
                client.sendall(ANSWER_500)
        elif state == SILENT:
            while client.recv(1 << 16):
                pass
        else:
            with socket.create_connection(self._target) as server:
                self._pass_on(client, server, loses=state == LOSING)

    def _pass_on(self, client, server, *, loses):
        with selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            while True:
                for key, _ in selector.select():
                    data = key.fileobj.recv(1 << 16)
                    # The server has done what it was asked to, and nobody hears of it.
                    if not data or (loses and key.fileobj is server):
                        return
                    key.data.sendall(data)


@contextmanager
def unreliable_network(port: int) -> Iterator[Network]:
    """Give a way to a port of this machine, whole at first."""
    with closing(Network(port)) as network:
        yield network
