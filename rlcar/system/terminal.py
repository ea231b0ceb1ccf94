"""Keeps a command running when the terminal or pipe that it prints to is closed.

Without this, the first line that a command prints after that ends it, because Rich raises
SystemExit for a broken pipe.
"""

import contextlib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from rlcar.errors import reason_of

LOG = "output.log"  # in a run's folder: what a training prints after its output is closed
EXIT_CODE = 128 + signal.SIGPIPE  # of commands that do nothing but print


_Text = IO[str] | io.TextIOBase


class _Stream:
    """Writes to a stream; after that is closed, to a log or nowhere, or ends the process."""

    def __init__(self, stream: _Text):
        self._stream = stream
        self._lock = threading.RLock()
        self._is_lost = False
        self.logs: list[Path] = []  # where to continue; the last one counts
        self.ends_process = False

    def write(self, text: str) -> int:
        """Writes to the stream; replaces one that was closed."""
        return self._safely("write", text) or 0

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes to the stream; replaces one that was closed."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Flushes the stream; replaces one that was closed."""
        self._safely("flush")

    def isatty(self) -> bool:
        """Returns False once the terminal is closed."""
        try:
            return bool(self._stream.isatty())
        except ValueError:
            return False

    def close_log(self) -> None:
        """Closes the log, if one replaced the stream."""
        if self._is_lost:
            self._stream.close()

    def __getattr__(self, name: str) -> Any:  # encoding, buffer, fileno, …
        return getattr(self._stream, name)

    def _safely(self, method: str, *arguments: Any) -> Any:
        with self._lock:
            try:
                return getattr(self._stream, method)(*arguments)
            except (OSError, ValueError) as error:
                if isinstance(error, UnicodeError):
                    raise
                self._lose(error)
                return getattr(self._stream, method)(*arguments)

    def _lose(self, error: OSError | ValueError) -> None:
        """Continues in the log, or nowhere when the log cannot be written either."""
        _point_to_dev_null(self._stream)
        if self.ends_process:
            self._stream = _NullStream()
            sys.exit(EXIT_CODE)
        was_lost, self._is_lost = self._is_lost, True
        if was_lost:
            with contextlib.suppress(OSError):
                self._stream.close()
        self._stream = _open_log(self.logs[-1]) if self.logs and not was_lost else _NullStream()
        reason = reason_of(error)
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        with contextlib.suppress(OSError):
            self._stream.write(f"{now}: the output was closed ({reason}) and goes on here\n")


def _point_to_dev_null(stream: _Text) -> None:
    """Points a stream's descriptor to /dev/null, for buffered output and for compiled code."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        descriptor = stream.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)


def _open_log(path: Path) -> _Text:
    try:
        return path.open("a", encoding="utf-8", errors="replace", buffering=1)
    except OSError:
        return _NullStream()


class _NullStream(io.TextIOBase):
    """A stream that drops what is written; unlike /dev/null, it holds no descriptor."""

    encoding = "utf-8"

    def write(self, text: str, /) -> int:
        return len(text)


def set_up() -> None:
    """Prepares the streams of a command; call it before anything else opens files.

    Closed standard descriptors are opened on /dev/null. Otherwise the next file that the process
    opens would get such a number, and messages would be written into that file.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, _Stream):
            setattr(sys, name, _Stream(_NullStream() if stream is None else stream))


def end_when_closed() -> None:
    """Makes a closed output end the process without a message, for commands that only print."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, _Stream):
            stream.ends_process = True


@contextlib.contextmanager
def outlived(log: Path | None = None) -> Iterator[None]:
    """Lets the enclosed work continue, printing into `log`, when its terminal or pipe is closed.

    The hang-up signal of a closing terminal is ignored too, also by processes that are started
    here. Without a log, the output is lost.
    """
    before = sys.stdout, sys.stderr
    set_up()
    streams: list[Any] = [sys.stdout, sys.stderr]
    for stream in streams:
        stream.logs += [] if log is None else [log]
    try:
        with _hang_up_ignored():
            yield
    finally:
        for stream in streams:
            stream.flush()
            del stream.logs[len(stream.logs) - (log is not None) :]
            if stream not in before:
                stream.close_log()
        sys.stdout, sys.stderr = before


@contextlib.contextmanager
def _hang_up_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, previous)
