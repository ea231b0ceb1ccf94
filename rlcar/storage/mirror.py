"""Sends a run to its storage after each save, beside the training."""

import logging
import threading
from pathlib import Path
from typing import Self

from rlcar.errors import StorageError
from rlcar.storage.runs import Storage

# The last push may take as long; a drain on SIGTERM has 20 s for everything.
CLOSE_S = 12.0

logger = logging.getLogger(__name__)


class Mirror:
    """Pushes whenever it is told to; what fails is warned of, counted, and pushed the next time.

    Without an address it does nothing.
    """

    def __init__(self, folder: Path, url: str) -> None:
        """Raises StorageError for an address that is none."""
        self._folder = folder.resolve()  # the storage calls the run by this name
        self._storage = Storage(url) if url else None
        self._wanted, self._closing = threading.Event(), False
        self._thread = threading.Thread(target=self._serve, daemon=True, name="mirror")
        self._pushes = self._failures = 0
        if self._storage is not None:
            self._thread.start()

    def push(self) -> None:
        """Asks for a push and returns at once."""
        self._wanted.set()

    def metrics(self) -> dict[str, float]:
        """How often the storage was brought up to date, and how often it could not be."""
        if self._storage is None:
            return {}
        return {"storage/pushes": self._pushes, "storage/failures": self._failures}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._storage is None:
            return
        self._closing = True
        self._wanted.set()
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            logger.warning("the last checkpoint is in %s, not yet in the storage", self._folder)

    def _serve(self) -> None:
        assert self._storage is not None
        is_last = False
        while not is_last:
            self._wanted.wait()
            self._wanted.clear()
            is_last = self._closing  # read here: what was asked for during a push is still done
            try:
                if self._folder.is_dir():
                    self._storage.push(self._folder)
                    self._pushes += 1
            except Exception as error:  # or nothing would be mirrored from then on
                self._failures += 1
                logger.warning(
                    "%s; training goes on, the next save tries again",
                    error,
                    exc_info=not isinstance(error, StorageError),
                )
