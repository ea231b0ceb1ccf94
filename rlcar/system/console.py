"""Consoles that use colours, bars and cursor movements only on a terminal."""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from io import TextIOWrapper
from typing import Any

from rich.console import Console
from rich.segment import Segment

# These variables make Rich treat a file as a terminal: colours and bars would end up in logs.
_TERMINAL_OVERRIDES = frozenset({"FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"})


class _Environment(Mapping[str, str]):
    """The current environment of this process without `_TERMINAL_OVERRIDES`."""

    def __getitem__(self, name: str) -> str:
        if name in _TERMINAL_OVERRIDES:
            raise KeyError(name)
        return os.environ[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name in os.environ if name not in _TERMINAL_OVERRIDES)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Console(Console):
    """A console that stops writing colours when its terminal closes.

    Rich checks the stream at each write, but chooses the colours when the console is made.
    """

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        return super()._render_buffer(buffer if self.is_terminal else Segment.strip_styles(buffer))


def make_console(**options: Any) -> Console:
    """Returns a console that draws only where its stream is a terminal; options as of Rich's."""
    return _Console(_environ=_Environment(), **options)


def accept_any_text() -> None:
    """Prints a question mark for a character that the encoding of stdout or stderr lacks."""
    for stream in (sys.stdout, sys.stderr):
        # A replaced stream may have no encoding, or be closed.
        if isinstance(stream, TextIOWrapper):
            with contextlib.suppress(ValueError, OSError):
                stream.reconfigure(errors="replace")
