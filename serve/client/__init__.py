"""The SDK: clients of the policy server, for cars."""

from serve.client.client import (
    AsyncDriveClient,
    DriveClient,
    Lap,
    LapReportError,
    LapResult,
    ServerError,
)

__all__ = [
    "AsyncDriveClient",
    "DriveClient",
    "Lap",
    "LapReportError",
    "LapResult",
    "ServerError",
]
