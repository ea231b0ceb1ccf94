"""A connection between a client and a server that tests can cut."""

import contextlib
import socket
import threading
from urllib.parse import urlsplit


class Link:
    """Forwards TCP connections to a server, until it is cut."""

    def __init__(self, server: str):
        parts = urlsplit(server)
        self._scheme, self._target = parts.scheme, (parts.hostname, parts.port)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._is_cut, self._is_silent, self.accepted = False, False, 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """The address to use in place of the server's."""
        return f"{self._scheme}://127.0.0.1:{self._socket.getsockname()[1]}"

    def cut(self, *, silent: bool = False) -> None:
        """Breaks all connections and refuses new ones; silently, none of them gets an answer."""
        self._is_cut, self._is_silent = True, silent
        if not silent:
            for end in list(self._open):
                self._close(end)

    def restore(self) -> None:
        """Lets new connections through; those that were cut silently stay dead."""
        self._is_cut = False
        for end in list(self._open):
            self._close(end)

    def close(self) -> None:
        """Ends everything."""
        self.cut()
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                client = self._socket.accept()[0]
            except OSError:
                return
            self.accepted += 1
            if self._is_cut and not self._is_silent:
                self._close(client)
                continue
            self._open.add(client)
            if self._is_cut:
                continue
            try:
                server = socket.create_connection(self._target)
            except OSError:
                self._close(client)
                continue
            self._open.add(server)
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if self._is_cut:
                    if self._is_silent:
                        return  # both ends stay open, and hear nothing
                    break
                sink.sendall(data)
        if not self._is_silent:
            self._close(source)
            self._close(sink)

    def _close(self, end: socket.socket) -> None:
        self._open.discard(end)
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
