"""Asks a Prometheus server for its pending and firing alerts."""

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime
from http.client import HTTPException
from typing import Any, NamedTuple

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
        """Raises UserError for an address or a token that cannot be one."""
        if not _is_address(url):
            raise UserError(
                f"--prometheus {url!r} is not the address of a server: give one like "
                "http://localhost:9090"
            )
        if token is not None and not (token.isascii() and token.isprintable()):
            raise UserError(
                "the token for Prometheus holds characters that no HTTP header may have: check "
                "its file or variable"
            )
        self.url = url.rstrip("/")
        self._headers = {"Accept": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._opener = urllib.request.build_opener(_NoRedirect)

    def alerts(self) -> list[Alert]:
        """Returns firing alerts first, the most severe first.

        Raises UserError if the server cannot be reached, refuses, or answers something else.
        """
        address = f"{self.url}/api/v1/alerts"
        request = urllib.request.Request(address, headers=self._headers)
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S) as answer:
                body = answer.read(_LARGEST_ANSWER_BYTES + 1)
        except urllib.error.HTTPError as error:
            with error:
                raise UserError(self._refusal(error.code)) from error
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            text = reason_of(reason) if isinstance(reason, BaseException) else str(reason)
            raise UserError(
                f"Prometheus at {self.url} cannot be reached ({text}): check the address, and that "
                "the server runs"
            ) from error
        if len(body) > _LARGEST_ANSWER_BYTES:
            raise UserError(f"{self.url} answered with more than 16 MiB: this cannot be Prometheus")
        return self._parsed(body)

    def _refusal(self, status: int) -> str:
        if status == 401:
            return (
                f"{self.url} asks for a token or does not accept the one given (401): set "
                "RLCAR_PROMETHEUS_TOKEN, or give --prometheus-token-file"
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
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{self.url} answered with something that is not a list of alerts: give the "
                "address of Prometheus itself, such as http://localhost:9090"
            ) from error
        return sorted(alerts, key=_order)


def _is_address(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not match, a port that is no number
        return False


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirection, which would hand the token to another host."""

    def redirect_request(self, *parts: Any) -> None:
        """Returns nothing, so that the redirection counts as an error."""


def _alert(entry: dict[str, Any]) -> Alert:
    labels = {str(name): str(value) for name, value in entry["labels"].items()}
    annotations = entry.get("annotations") or {}
    return Alert(
        labels.pop("alertname"),
        str(entry["state"]),
        labels.pop("severity", ""),
        labels,
        str(annotations.get("summary", "")),
        str(annotations.get("runbook_url", "")),
        _unix_s(entry.get("activeAt")),
        _finite(entry.get("value")),
    )


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
