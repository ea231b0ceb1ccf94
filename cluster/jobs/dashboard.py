"""Access to a Ray cluster from outside: dashboard address, token, and a client for jobs."""

import http.client
import json
import logging
import os
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from cluster.jobs.auth_token import RayToken, find_token, token_path
from rlcar.errors import UserError, reason_of

DEFAULT_PORT = 8265
# Loggers of Ray's client, which log every request at INFO.
_CLIENT_LOGGERS = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")
_ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
_AUTHORITIES = "REQUESTS_CA_BUNDLE"  # names the certificates that Ray's client accepts


def dashboard_url(address: str | None) -> str:
    """Completes an address to `http://host:port`; raises UserError if it cannot be one."""
    given = address or os.environ.get(_ADDRESS_VARIABLE) or os.environ.get("RAY_ADDRESS") or ""
    if given in ("", "auto", "local"):
        return f"http://127.0.0.1:{DEFAULT_PORT}"
    parts = urlsplit(given if "://" in given else f"http://{given}")
    if parts.scheme == "ray" or (not address and "://" not in given and parts.port):
        # RAY_ADDRESS usually names the control service; the dashboard is on the same host.
        parts = urlsplit(f"http://{parts.hostname}:{DEFAULT_PORT}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.query:
        raise UserError(
            f"{given!r} is not the address of a Ray dashboard: give host, host:{DEFAULT_PORT} or "
            "an http(s) URL"
        )
    host = f"[{host}]" if ":" in host else host
    if port is None and "://" not in given:
        port = DEFAULT_PORT
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}"


class DashboardClient(JobSubmissionClient):
    """Ray's client for jobs, with the address, the token and a timeout for every request."""

    def __init__(self, url: str, token: RayToken | None, timeout_s: float):
        self.url, self.token, self._timeout_s = url, token, timeout_s
        for name in _CLIENT_LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
        headers = {"Authorization": f"Bearer {token.value}"} if token else {}
        with _address_in_environment(url):
            super().__init__(url, headers=headers, verify=os.environ.get(_AUTHORITIES) or True)

    def get_json(self, path: str) -> Any:
        """Returns the JSON at `path`; raises RuntimeError for any other response."""
        return self.get(path).json()

    def get(self, path: str) -> Any:
        """Returns the response; raises RuntimeError unless its status is 200."""
        response = self._do_request("GET", path)
        if response.status_code != 200:
            self._raise_error(response)
        return response

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        return super()._do_request(method, endpoint, timeout=self._timeout_s, **options)


def connect(address: str | None, timeout_s: float = 20.0) -> DashboardClient:
    """Connects to a cluster's dashboard; raises UserError with the reason if it cannot."""
    url = dashboard_url(address)
    mode = authentication_mode(url, timeout_s)
    token = find_token() if mode == "token" else None
    if mode == "token" and token is None:
        raise UserError(
            f"the cluster at {url} requires a token and there is none here: set RAY_AUTH_TOKEN or "
            f"RAY_AUTH_TOKEN_PATH, or write to {token_path() or '~/.ray/auth_token'} what "
            "`ray get-auth-token` prints on its head node"
        )
    try:
        return DashboardClient(url, token, timeout_s)
    except AuthenticationError:
        assert token is not None, "the dashboard refused a token that it had not required"
        raise UserError(
            f"the cluster at {url} refuses the token of {token.source}: replace it with what "
            "`ray get-auth-token` prints on its head node"
        ) from None
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"the cluster at {url} gave an unusable answer: {brief(error)}") from error


def authentication_mode(url: str, timeout_s: float) -> str:
    """Asks a dashboard whether it requires a token; returns `token` or `disabled`.

    Raises UserError if there is no dashboard at that URL.
    """
    host, port = address_of(url)
    try:
        socket.create_connection((host, port), timeout_s).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise UserError(
            f"nothing answers at {url} ({brief(error)}): is the cluster up, was it started with "
            f"--dashboard-host=0.0.0.0, and is port {port} open from here?"
        ) from error
    try:
        with request_mode(url, timeout_s) as answer:
            return str(json.load(answer)["authentication_mode"])
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise UserError(_not_a_dashboard(url, port, error)) from error


def request_mode(url: str, timeout_s: float) -> http.client.HTTPResponse:
    """Requests the authentication mode, which needs no token; returns the open response."""
    authorities = os.environ.get(_AUTHORITIES) or None
    context = ssl.create_default_context(cafile=authorities) if url.startswith("https:") else None
    endpoint = f"{url}/api/authentication_mode"
    return urllib.request.urlopen(endpoint, timeout=timeout_s, context=context)


def address_of(url: str) -> tuple[str, int]:
    """Returns the host and the port of a URL."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def brief(error: BaseException) -> str:
    """Describes an error in one line."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return "unknown host name"
    line = (reason_of(error).strip() or type(error).__name__).splitlines()[0]
    return line if line.isprintable() else "the server uses another protocol"


def _not_a_dashboard(url: str, port: int, error: BaseException) -> str:
    hint = "6379 is usually the control service" if port == 6379 else f"usually {DEFAULT_PORT}"
    return (
        f"the server at {url} is not a Ray dashboard of version 2.52 or later ({brief(error)}): "
        f"give the dashboard's port ({hint}), and start the head without --include-dashboard=false"
    )


@contextmanager
def _address_in_environment(url: str) -> Iterator[None]:
    # Ray prefers this variable to the address that it is given.
    before = os.environ.get(_ADDRESS_VARIABLE)
    os.environ[_ADDRESS_VARIABLE] = url
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ADDRESS_VARIABLE]
        else:
            os.environ[_ADDRESS_VARIABLE] = before
