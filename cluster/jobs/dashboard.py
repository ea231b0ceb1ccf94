"""The way to a cluster from outside: its dashboard, its token, and a client for its jobs."""

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

from cluster.jobs.auth_token import Token, find_token, token_path
from rlcar.errors import UserError

DEFAULT_PORT = 8265
# Loggers of Ray's client, which log every request at INFO.
_CLIENT_LOGGERS = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")
_ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
_AUTHORITIES = "REQUESTS_CA_BUNDLE"  # the certificates that Ray's client goes by


def dashboard_url(address: str | None) -> str:
    """Makes `http://host:port` of what a user may give; raises UserError for anything else."""
    given = address or os.environ.get(_ADDRESS_VARIABLE) or os.environ.get("RAY_ADDRESS") or ""
    if given in ("", "auto", "local"):
        return f"http://127.0.0.1:{DEFAULT_PORT}"
    parts = urlsplit(given if "://" in given else f"http://{given}")
    if parts.scheme == "ray" or (not address and "://" not in given and parts.port):
        # RAY_ADDRESS usually names the control service; its dashboard is on the same host.
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


class Dashboard(JobSubmissionClient):
    """Ray's client for jobs, knowing whom it speaks to, and never waiting for ever."""

    def __init__(self, url: str, token: Token | None, timeout_s: float):
        self.url, self.token, self._timeout_s = url, token, timeout_s
        for name in _CLIENT_LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
        headers = {"Authorization": f"Bearer {token.value}"} if token else {}
        with _our_address(url):
            super().__init__(url, headers=headers, verify=os.environ.get(_AUTHORITIES) or True)

    def get_json(self, path: str) -> Any:
        """What the dashboard says at `path`; raises RuntimeError for anything but JSON."""
        return self.get(path).json()

    def get(self, path: str) -> Any:
        """A response; raises RuntimeError unless it is 200."""
        response = self._do_request("GET", path)
        if response.status_code != 200:
            self._raise_error(response)
        return response

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        return super()._do_request(method, endpoint, timeout=self._timeout_s, **options)


def connect(address: str | None, timeout_s: float = 20.0) -> Dashboard:
    """Reaches a cluster's dashboard; raises UserError with the one cause of why it cannot."""
    url = dashboard_url(address)
    mode = authentication_mode(url, timeout_s)
    token = find_token() if mode == "token" else None
    if mode == "token" and token is None:
        raise UserError(
            f"the cluster at {url} wants a token and there is none here: set RAY_AUTH_TOKEN, or "
            f"RAY_AUTH_TOKEN_PATH, or write {token_path() or '~/.ray/auth_token'} with what "
            "`ray get-auth-token` says on its head node"
        )
    try:
        return Dashboard(url, token, timeout_s)
    except AuthenticationError:
        assert token is not None, "the dashboard refused a token that it had not asked for"
        raise UserError(
            f"the cluster at {url} refuses the token of {token.source}: replace it by what "
            "`ray get-auth-token` says on its head node"
        ) from None
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"the cluster at {url} does not answer well: {brief(error)}") from error


def authentication_mode(url: str, timeout_s: float) -> str:
    """`token` or `disabled`, which a dashboard tells anybody; raises UserError if there is none."""
    host, port = address_of(url)
    try:
        socket.create_connection((host, port), timeout_s).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise UserError(
            f"nothing answers at {url} ({brief(error)}): is the cluster up, was it started with "
            f"--dashboard-host=0.0.0.0, and is port {port} open from here?"
        ) from error
    try:
        with ask(url, timeout_s) as answer:
            return str(json.load(answer)["authentication_mode"])
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise UserError(_not_a_dashboard(url, port, error)) from error


def ask(url: str, timeout_s: float) -> Any:
    """The answer of a dashboard to a question that needs no token."""
    authorities = os.environ.get(_AUTHORITIES) or None
    context = ssl.create_default_context(cafile=authorities) if url.startswith("https:") else None
    question = f"{url}/api/authentication_mode"
    return urllib.request.urlopen(question, timeout=timeout_s, context=context)


def address_of(url: str) -> tuple[str, int]:
    """Host and port of a URL."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def brief(error: BaseException) -> str:
    """The first line of what an error says."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return "this name is not known"
    said = (getattr(error, "strerror", None) or str(error)).strip()
    line = said.splitlines()[0] if said else type(error).__name__
    return line if line.isprintable() else "it speaks another protocol"


def _not_a_dashboard(url: str, port: int, error: BaseException) -> str:
    hint = "6379 is usually the control service" if port == 6379 else f"usually {DEFAULT_PORT}"
    return (
        f"what answers at {url} is not a Ray dashboard of version 2.52 or later ({brief(error)}): "
        f"give the dashboard's port ({hint}), and start the head without --include-dashboard=false"
    )


@contextmanager
def _our_address(url: str) -> Iterator[None]:
    # Ray prefers these variables to the address that it is given.
    before = os.environ.get(_ADDRESS_VARIABLE)
    os.environ[_ADDRESS_VARIABLE] = url
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ADDRESS_VARIABLE]
        else:
            os.environ[_ADDRESS_VARIABLE] = before
