"""Consoles: colours, bars and cursors on a terminal alone, whatever its encoding."""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from io import TextIOWrapper
from typing import Any

from rich.console import Console
from rich.segment import Segment

# With these Rich takes a file for a terminal: bars and colours would end up in logs.
_PRETENDING = frozenset({"FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"})


class _Environment(Mapping[str, str]):
    """The environment of this process, as it is now, without the variables above."""

    def __getitem__(self, name: str) -> str:
        if name in _PRETENDING:
            raise KeyError(name)
        return os.environ[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name in os.environ if name not in _PRETENDING)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Console(Console):
    """A console that writes no colours once its terminal has gone.

    Rich looks at the stream each time, but chooses the colours when the console is made.
    """

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        return super()._render_buffer(buffer if self.is_terminal else Segment.strip_styles(buffer))


def make_console(**options: Any) -> Console:
    """Returns a console that draws only where its stream is a terminal; options as of Rich's."""
    return _Console(_environ=_Environment(), **options)


def accept_any_text() -> None:
    """Shows a question mark for a character that the terminal's encoding does not have."""
    for stream in (sys.stdout, sys.stderr):
        # A stream that somebody put in its place may not have an encoding, or be closed.
        if isinstance(stream, TextIOWrapper):
            with contextlib.suppress(ValueError, OSError):
                stream.reconfigure(errors="replace")
