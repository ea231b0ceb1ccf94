"""Everybody who watches: each gets the newest frame, and every sentence in order."""

import asyncio
import secrets
from collections import deque
from typing import Any

import msgspec

MOST_VIEWERS = 64
_MOST_WAITING = 256  # sentences; who is so far behind has gone


class Viewer:
    """One open page. Frames that it was too slow to take are skipped; sentences never are."""

    def __init__(self, may_drive: bool = True):
        self.id, self.key = secrets.token_hex(4), secrets.token_urlsafe(16)
        self.may_drive = may_drive
        self.is_gone = False
        self._frames: dict[int, bytes] = {}  # the newest of each kind
        self._sentences: deque[str] = deque()
        self._news = asyncio.Event()

    def show(self, frame: bytes) -> None:
        """Replaces the frame of its kind that was not sent yet."""
        self._frames[frame[0]] = frame
        self._news.set()

    def tell(self, sentence: str) -> None:
        """Queues a sentence."""
        self._sentences.append(sentence)
        self.is_gone |= len(self._sentences) > _MOST_WAITING
        self._news.set()

    async def news(self) -> list[bytes | str]:
        """Waits until there is something to send, and takes it."""
        await self._news.wait()
        self._news.clear()
        taken: list[bytes | str] = [*self._sentences, *self._frames.values()]
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
                viewer.tell(text)


def sentence(kind: str, **said: Any) -> str:
    """Returns a message as JSON; NaN and infinities become null."""
    return msgspec.json.encode({"type": kind, **said}).decode()
