"""Asks a Prometheus server for its pending and firing alerts."""

import base64
import contextlib
import json
import math
import socket
import ssl
import threading
from datetime import datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from rlcar.errors import UserError, reason_of

_TIMEOUT_S = 10.0
_LARGEST_ANSWER_BYTES = 1 << 24
_SEVERITIES = ("critical", "warning", "info")
_TEMPORARY_FAULTS = {502, 503, 504}


class Alert(NamedTuple):
    """An alert that is pending or firing."""

    name: str
    state: str  # firing, or pending: not for long enough yet
    severity: str
    labels: dict[str, str]
    summary: str
    runbook: str
    since_unix_s: float | None
    value: float | None


class AlertsReader:
    """Reads the alerts of one Prometheus server."""

    def __init__(self, url: str, token: str | None = None):
        """Raises UserError for an address or a token that cannot be one.

        A user name and a password in the address are sent, and never shown.
        """
        parts = _address(url)
        if token is not None and not (token.isascii() and token.isprintable()):
            raise UserError(
                "the token for Prometheus holds characters that no HTTP header may have: check "
                "its file or variable"
            )
        if token and parts.username is not None:
            raise UserError(
                "the address of Prometheus holds a user name and there is a token too: give only "
                "one of them"
            )
        self._parts = parts
        host = parts.netloc.rpartition("@")[2]
        self.url = f"{parts.scheme}://{host}{parts.path.rstrip('/')}"
        self._headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        elif parts.username is not None:
            both = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            encoded = base64.b64encode(both.encode()).decode()
            self._headers["Authorization"] = f"Basic {encoded}"

    def alerts(self) -> list[Alert]:
        """Returns firing alerts first, the most severe first.

        Raises UserError if the server cannot be reached, refuses, or answers something else.
        """
        connection, is_late = self._connection(), threading.Event()
        # The timeout of a connection begins anew with each byte; this one is for the whole answer.
        timer = threading.Timer(_TIMEOUT_S, _cut_off, (connection, is_late))
        timer.daemon = True
        timer.start()
        try:
            # A redirection counts as an error, because following it would hand on the token.
            path = f"{self._parts.path.rstrip('/')}/api/v1/alerts"
            connection.request("GET", path, headers=self._headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise UserError(self._refusal(answer.status))
            body = answer.read(_LARGEST_ANSWER_BYTES + 1)
        except (OSError, HTTPException, ValueError) as error:
            raise UserError(self._failure(error, is_late=is_late.is_set())) from error
        finally:
            timer.cancel()
            connection.close()
        if is_late.is_set():
            raise UserError(self._failure(TimeoutError(), is_late=True))
        if len(body) > _LARGEST_ANSWER_BYTES:
            raise UserError(f"{self.url} answered with more than 16 MiB: this cannot be Prometheus")
        return self._parsed(body)

    def _connection(self) -> HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "http":
            return HTTPConnection(host, port, timeout=_TIMEOUT_S)
        context = ssl.create_default_context()
        return HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=context)

    def _failure(self, error: BaseException, *, is_late: bool) -> str:
        """Says why there was no answer, and what to do."""
        begin = f"Prometheus at {self.url}"
        if is_late or isinstance(error, TimeoutError):
            return (
                f"{begin} did not answer within {_TIMEOUT_S:g} s: check the address, that no "
                "firewall is in between, and that the server is not overloaded"
            )
        if isinstance(error, ssl.SSLCertVerificationError):
            return (
                f"{begin} has a certificate that is not trusted ({error.verify_message}): use the "
                "name that the certificate is for, and name the file of its authority in "
                "SSL_CERT_FILE"
            )
        if isinstance(error, ssl.SSLError):
            return (
                f"{begin} does not speak TLS as expected ({error.reason or 'connection closed'}): "
                "give its address with http:// if it has no certificate"
            )
        if isinstance(error, socket.gaierror | UnicodeError):
            return f"{begin} cannot be reached (unknown host name): check the address"
        if isinstance(error, HTTPException) and not isinstance(error, OSError):
            return (
                f"{begin} does not answer as an HTTP server does: check the port, and give the "
                "address with https:// if the server has a certificate"
            )
        return (
            f"{begin} cannot be reached ({reason_of(error)}): check the address, and that the "
            "server runs"
        )

    def _refusal(self, status: int) -> str:
        if status == 401:
            return (
                f"{self.url} asks for a token or does not accept the one given (401): set "
                "RLCAR_PROMETHEUS_TOKEN, or give --prometheus-token-file; if it asks for a user "
                "name, set RLCAR_PROMETHEUS to https://USER:PASSWORD@HOST"
            )
        if status == 403:
            return f"{self.url} does not allow this token to read alerts (403): use another token"
        if status in _TEMPORARY_FAULTS:
            return f"{self.url} is not ready ({status}): try again soon"
        if 300 <= status < 400:
            return f"{self.url} redirects elsewhere ({status}): give the final address"
        return (
            f"{self.url} does not answer as Prometheus does ({status} for /api/v1/alerts): give "
            "the address of Prometheus itself, with its path prefix if it has one"
        )

    def _parsed(self, body: bytes) -> list[Alert]:
        try:
            answer = json.loads(body)
            if answer["status"] != "success":
                raise ValueError(answer.get("error"))
            alerts = [_alert(entry) for entry in answer["data"]["alerts"]]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{self.url} answered with something that is not a list of alerts: give the "
                "address of Prometheus itself, such as http://localhost:9090"
            ) from error
        return sorted(alerts, key=_order)


def _address(url: str) -> SplitResult:
    """Returns the parts of the address of a server; raises UserError if it is none."""
    try:
        parts = urlsplit(url)
        is_server = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not match, a port that is no number
        is_server = False
    if not (is_server and url.isprintable() and " " not in url) or parts.query or parts.fragment:
        shown = repr(url) if "@" not in url else "the given text"
        raise UserError(
            f"--prometheus: {shown} is not the address of a server: give one like "
            "http://localhost:9090"
        )
    return parts


def _cut_off(connection: HTTPConnection, is_late: threading.Event) -> None:
    """Ends a connection on which too little arrives."""
    is_late.set()
    if connection.sock is not None:
        with contextlib.suppress(OSError):  # it has ended by itself
            connection.sock.shutdown(socket.SHUT_RDWR)


def _alert(entry: dict[str, Any]) -> Alert:
    labels = {_plain(name): _plain(value) for name, value in entry["labels"].items()}
    annotations = entry.get("annotations") or {}
    return Alert(
        labels.pop("alertname"),
        _plain(entry["state"]),
        labels.pop("severity", ""),
        labels,
        _plain(annotations.get("summary", "")),
        _plain(annotations.get("runbook_url", "")),
        _unix_s(entry.get("activeAt")),
        _finite(entry.get("value")),
    )


def _plain(text: object) -> str:
    """Returns a text without characters that would move the cursor of a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in str(text))


def _unix_s(text: object) -> float | None:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None


def _finite(text: object) -> float | None:
    try:
        value = float(str(text))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _order(alert: Alert) -> tuple[bool, int, str, str]:
    known = alert.severity in _SEVERITIES
    rank = _SEVERITIES.index(alert.severity) if known else len(_SEVERITIES)
    return alert.state != "firing", rank, alert.name, str(sorted(alert.labels.items()))
