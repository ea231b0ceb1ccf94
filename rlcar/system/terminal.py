"""Output that outlives its terminal: a command does its work whoever reads what it prints.

Without this, the first line after `| head -1` has ended, or after a terminal has closed, ends the
process: rich raises SystemExit for a broken pipe.
"""

import contextlib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOG = "output.log"  # in the run's folder: what a training prints once nobody reads it any more
EXIT_CODE = 128 + signal.SIGPIPE  # of commands whose output is all that they do


class _Stream:
    """Writes to a stream; when that has gone, to a log or nowhere, or it ends the process."""

    def __init__(self, stream: Any):
        self._stream = stream
        self._lock = threading.RLock()
        self._is_lost = False
        self.logs: list[Path] = []  # where to go on; the last one counts
        self.ends_process = False

    def write(self, text: str) -> int:
        """Writes as a stream does; a stream that was closed is replaced."""
        return self._safely("write", text) or 0

    def writelines(self, lines: Any) -> None:
        """Writes as a stream does; a stream that was closed is replaced."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Flushes as a stream does; a stream that was closed is replaced."""
        self._safely("flush")

    def isatty(self) -> bool:
        """Says no once the terminal has gone."""
        try:
            return bool(self._stream.isatty())
        except ValueError:
            return False

    def forget(self) -> None:
        """Closes what it opened itself."""
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
        """Goes on in the log; if that fails as well, for a full disk say, nowhere."""
        _point_to_nothing(self._stream)
        if self.ends_process:
            self._stream = _Nowhere()
            sys.exit(EXIT_CODE)
        was_lost, self._is_lost = self._is_lost, True
        if was_lost:
            with contextlib.suppress(OSError):
                self._stream.close()
        self._stream = _open_log(self.logs[-1]) if self.logs and not was_lost else _Nowhere()
        reason = getattr(error, "strerror", None) or str(error)
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        with contextlib.suppress(OSError):
            self._stream.write(f"{now}: the output was closed ({reason}) and goes on here\n")


def _point_to_nothing(stream: Any) -> None:
    """Points a stream's descriptor to nowhere: for what is buffered, and for compiled code."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        descriptor = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def _open_log(path: Path) -> Any:
    try:
        return path.open("a", encoding="utf-8", errors="replace", buffering=1)
    except OSError:
        return _Nowhere()


class _Nowhere(io.TextIOBase):
    """A stream that drops what is written. Unlike /dev/null it need not be closed."""

    encoding = "utf-8"

    def write(self, text: str, /) -> int:
        return len(text)


def set_up() -> None:
    """Prepares the streams of a command; call it before anything else opens files.

    Standard descriptors that are closed are opened on nothing: else the next file that the process
    opens would get their number, and messages would be written into it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, _Stream):
            setattr(sys, name, _Stream(_Nowhere() if stream is None else stream))


def end_when_closed() -> None:
    """Makes a closed output end the process in silence, for commands that do nothing but print."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, _Stream):
            stream.ends_process = True


@contextlib.contextmanager
def outlived(log: Path | None = None) -> Iterator[None]:
    """Lets the work inside it go on, and write into `log`, when the terminal or pipe has gone.

    The hang-up signal of a closing terminal is ignored as well, also by processes that are started
    here. Without a log, what nobody reads is lost.
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
                stream.forget()
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
