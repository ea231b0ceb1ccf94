"""Addresses of storages, the connection to one, and sentences about its errors."""

import os
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from pyarrow import fs

from rlcar.errors import StorageError

_CONNECT_S, _REQUEST_S, _ATTEMPTS = 5.0, 20.0, 2
_S3_OPTIONS = ("endpoint_override", "region", "scheme")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")


class Location(NamedTuple):
    """A parsed storage address."""

    is_s3: bool
    path: str  # bucket/prefix, or an absolute folder
    options: dict[str, str]


def parse_storage(url: str) -> Location:
    """Parses s3://bucket/prefix, file:///folder or /folder; raises StorageError for anything else.

    An s3 address may end in ?endpoint_override=host:port&scheme=http&region=… but must not hold
    credentials.
    """
    parts = urlsplit(url)
    if parts.scheme in ("", "file") and parts.path.startswith("/") and not parts.netloc:
        return Location(False, parts.path.rstrip("/") or "/", {})
    if parts.scheme != "s3":
        raise StorageError(
            f"--storage {url!r} is not an address of storage: give s3://bucket/prefix, "
            "file:///folder or /folder"
        )
    if "@" in parts.netloc:
        raise StorageError(
            "--storage holds credentials, which would be written into the run: give them as "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    options = dict(parse_qsl(parts.query))
    unknown = sorted(set(options) - set(_S3_OPTIONS))
    if not parts.netloc or unknown:
        what = f"the unknown option {unknown[0]!r}" if unknown else "no bucket"
        raise StorageError(
            f"--storage {url!r} has {what}: give s3://bucket/prefix, then ? and any of "
            f"{', '.join(_S3_OPTIONS)}"
        )
    return Location(True, f"{parts.netloc}{parts.path}".rstrip("/"), options)


def connect(location: Location) -> fs.FileSystem:
    """Opens the file system of a storage; a bucket's region may be asked for on the network."""
    if not location.is_s3:
        return fs.LocalFileSystem()
    endpoint = location.options.get("endpoint_override") or next(
        (os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), ""
    )
    scheme, _, host = endpoint.rpartition("://")
    region = location.options.get("region") or next(
        (os.environ[name] for name in _REGIONS if os.environ.get(name)), None
    )
    if region is None and not endpoint:
        region = fs.resolve_s3_region(location.path.partition("/")[0])
    return fs.S3FileSystem(
        region=region,
        scheme=location.options.get("scheme") or scheme or "https",
        endpoint_override=host or None,
        connect_timeout=_CONNECT_S,
        request_timeout=_REQUEST_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
    )


def explain(url: str, location: Location, error: Exception) -> str:
    """Returns a sentence about an error of the storage, with what to do."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    advice = "is it there, and may this user write to it?"
    if location.is_s3:
        bucket = location.path.partition("/")[0]
        advice = "is the address right, and the network up?"
        # Credentials first, because a server says "does not exist" about a wrong key too.
        if any(word in reason for word in ("ACCESS_DENIED", "INVALID_ACCESS", "SIGNATURE", "403")):
            advice = (
                "give credentials that may write there, as AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY or in ~/.aws/credentials"
            )
        elif any(word in reason for word in ("NO_SUCH_BUCKET", "not found", "does not exist")):
            advice = f"create the bucket {bucket!r} first"
    return f"cannot reach the storage {url}: {reason}; {advice}"
