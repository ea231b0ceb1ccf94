"""The SDK: a car's side of the policy server."""

from serve.client.client import AsyncDriveClient, DriveClient, ServerError

__all__ = ["AsyncDriveClient", "DriveClient", "ServerError"]
