"""Everybody who watches: each gets the newest frame, and every sentence in order."""

import asyncio
import itertools
import secrets
from typing import Any

import msgspec

MOST_VIEWERS = 64
MOST_VIEWERS_EACH = 32  # Of one token or address.
_MOST_WAITING = 256  # Sentences. A viewer that is so far behind does not read.
# Only the newest sentence of these kinds counts, so a later one replaces it while it waits.
_REPLACEABLE = frozenset({"state", "stats", "track", "versions"})


class Viewer:
    """One open page. It may miss frames, and sentences that a newer one of the kind replaced."""

    def __init__(self, may_drive: bool = True, owner: str = ""):
        """`owner` is the token or the address that opened the page."""
        self.id, self.key = secrets.token_hex(4), secrets.token_urlsafe(16)
        self.may_drive, self.owner = may_drive, owner
        self.is_gone = False
        self._frames: dict[int, bytes] = {}  # the newest of each kind
        self._sentences: dict[str | int, str] = {}  # By kind if replaceable, else by number.
        self._numbers = itertools.count()
        self._news = asyncio.Event()

    def show(self, frame: bytes) -> None:
        """Replaces the frame of its kind that was not sent yet."""
        self._frames[frame[0]] = frame
        self._news.set()

    def tell(self, sentence: str, kind: str = "") -> None:
        """Queues a sentence; it replaces a waiting one if the kind is replaceable."""
        key = kind if kind in _REPLACEABLE else next(self._numbers)
        self._sentences.pop(key, None)  # The newer one goes to the end of the queue.
        self._sentences[key] = sentence
        self.is_gone |= len(self._sentences) > _MOST_WAITING
        self._news.set()

    async def news(self) -> list[bytes | str]:
        """Waits until there is something to send, and takes it."""
        await self._news.wait()
        self._news.clear()
        taken: list[bytes | str] = [*self._sentences.values(), *self._frames.values()]
        self._sentences.clear()
        self._frames.clear()
        return taken


class Viewers:
    """All of them."""

    def __init__(self) -> None:
        self._all: dict[str, Viewer] = {}

    def __len__(self) -> int:
        return len(self._all)

    def add(self, viewer: Viewer) -> None:
        """Takes one more in."""
        self._all[viewer.key] = viewer

    def remove(self, viewer: Viewer) -> None:
        """Forgets one."""
        self._all.pop(viewer.key, None)

    def count_of(self, owner: str) -> int:
        """Returns how many pages of this token or address are open."""
        return sum(viewer.owner == owner for viewer in self._all.values())

    def find(self, key: str) -> Viewer | None:
        """Returns the viewer who knows this secret."""
        return self._all.get(key)

    def show(self, frame: bytes) -> None:
        """Shows everybody a frame."""
        for viewer in self._all.values():
            viewer.show(frame)

    def tell(self, kind: str, **said: Any) -> None:
        """Tells everybody a sentence."""
        if self._all:
            text = sentence(kind, **said)
            for viewer in self._all.values():
                viewer.tell(text, kind)


def sentence(kind: str, **said: Any) -> str:
    """Returns a message as JSON; NaN and infinities become null."""
    return msgspec.json.encode({"type": kind, **said}).decode()
