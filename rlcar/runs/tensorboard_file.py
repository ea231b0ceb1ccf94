"""Writes TensorBoard's event files.

Only `MetricsWriter` imports this module, when it opens its files: the import of tensorboardX would
be a quarter of the start of every command.
"""

import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c


class TensorBoardFile:
    """Writes TensorBoard's records (length, event, checksum of each) without buffering.

    `tensorboardX.SummaryWriter` passes events to a thread. If a full disk ends that thread, the
    training waits for it forever.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        # TensorBoard reads files in the order of their names, so names must differ within a second.
        self._file = (
            folder / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"
        ).open("xb")
        self._write(Event(file_version="brain.Event:2"))

    def start_again(self, env_steps: int) -> None:
        """Lets TensorBoard hide the points of earlier files from `env_steps` on."""
        self._write(Event(step=env_steps, session_log=SessionLog(status=SessionLog.START)))

    def write(self, env_steps: int, scalars: Mapping[str, float]) -> None:
        """Writes a point of each curve; the values are finite."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(Event(step=env_steps, summary=Summary(value=values)))

    def close(self) -> None:
        self._file.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        self._file.write(length + _checksum(length) + data + _checksum(data))
        self._file.flush()


def _checksum(data: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(data))
