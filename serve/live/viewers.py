"""The open pages: each gets the newest frames, and every message in order."""

import asyncio
import itertools
import secrets

import msgspec

MAX_VIEWERS = 64
MAX_VIEWERS_PER_OWNER = 32  # of one token or address
_MAX_WAITING = 256  # messages; a viewer that is further behind does not read
# Only the newest message of these kinds matters, so it replaces one that still waits.
_REPLACEABLE = frozenset({"state", "stats", "track", "versions"})


class Viewer:
    """One open page. It may miss frames, and messages that a newer one of the kind replaced."""

    def __init__(self, may_drive: bool = True, owner: str = ""):
        """`owner` is the token or the address that opened the page."""
        self.id, self.key = secrets.token_hex(4), secrets.token_urlsafe(16)
        self.may_drive, self.owner = may_drive, owner
        self.is_gone = False
        self._frames: dict[int, bytes] = {}  # the newest of each kind
        self._messages: dict[str | int, str] = {}  # by kind if replaceable, else by number
        self._numbers = itertools.count()
        self._has_news = asyncio.Event()

    def send_frame(self, frame: bytes) -> None:
        """Queues a frame; it replaces a waiting one of its kind."""
        self._frames[frame[0]] = frame
        self._has_news.set()

    def send_message(self, message: str, kind: str = "") -> None:
        """Queues a message; it replaces a waiting one if the kind is replaceable."""
        key = kind if kind in _REPLACEABLE else next(self._numbers)
        self._messages.pop(key, None)  # the newer one goes to the end of the queue
        self._messages[key] = message
        self.is_gone |= len(self._messages) > _MAX_WAITING
        self._has_news.set()

    async def next_news(self) -> list[bytes | str]:
        """Waits for messages and frames, and takes all of them from the queue."""
        await self._has_news.wait()
        self._has_news.clear()
        taken: list[bytes | str] = [*self._messages.values(), *self._frames.values()]
        self._messages.clear()
        self._frames.clear()
        return taken


class Viewers:
    """All open pages."""

    def __init__(self) -> None:
        self._all: dict[str, Viewer] = {}

    def __len__(self) -> int:
        return len(self._all)

    def add(self, viewer: Viewer) -> None:
        """Adds a viewer."""
        self._all[viewer.key] = viewer

    def remove(self, viewer: Viewer) -> None:
        """Removes a viewer."""
        self._all.pop(viewer.key, None)

    def count_of(self, owner: str) -> int:
        """Returns how many pages of this token or address are open."""
        return sum(viewer.owner == owner for viewer in self._all.values())

    def find(self, key: str) -> Viewer | None:
        """Returns the viewer with this secret key."""
        return self._all.get(key)

    def send_frame(self, frame: bytes) -> None:
        """Queues a frame for every viewer."""
        for viewer in self._all.values():
            viewer.send_frame(frame)

    def send_message(self, kind: str, **fields: object) -> None:
        """Queues a message for every viewer."""
        if self._all:
            message = make_message(kind, **fields)
            for viewer in self._all.values():
                viewer.send_message(message, kind)


def make_message(kind: str, **fields: object) -> str:
    """Returns a message as JSON; NaN and infinities become null."""
    return msgspec.json.encode({"type": kind, **fields}).decode()
