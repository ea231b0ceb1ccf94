"""Alerts of a Prometheus server, for `rlcar monitor`."""

import datetime
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from rlcar.errors import UserError, reason_of
from rlcar.system.regular_file import read_regular
from rlcar.system.tables import make_ruled_table

if TYPE_CHECKING:
    from rlcar.runs.prometheus_alerts import Alert, AlertsReader

_LARGEST_TOKEN_BYTES = 65_536
_COLOURS = {"critical": "bold red", "warning": "yellow"}


def alerts_reader(url: str, token_file: Path | None) -> "AlertsReader":
    """Returns a reader with the token of the file, else that of RLCAR_PROMETHEUS_TOKEN."""
    from rlcar.runs.prometheus_alerts import AlertsReader

    token = os.environ.get("RLCAR_PROMETHEUS_TOKEN")
    if token_file is not None:
        try:
            token = read_regular(token_file, _LARGEST_TOKEN_BYTES).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"--prometheus-token-file {token_file} cannot be read: {reason_of(error)}"
            ) from error
    return AlertsReader(url, token or None)


def alerts_table(alerts: "list[Alert]") -> "Table | str":
    """Draws alerts with what they mean and where to read on."""
    if not alerts:
        return "no alert is pending or firing"
    table = make_ruled_table("alert", "state", "about", "meaning")
    for alert in alerts:
        colour = _COLOURS.get(alert.severity, "default") if alert.state == "firing" else "dim"
        names = [f"{name}={value}" for name, value in sorted(alert.labels.items())]
        meaning = [line for line in (alert.summary, alert.runbook) if line]
        table.add_row(
            f"[{colour}]{escape(alert.name)}[/]\n{escape(alert.severity)}",
            escape(alert.state) + _since(alert.since_unix_s),
            escape("\n".join(names)),
            escape("\n".join(meaning)),
        )
    return table


def _since(unix_s: float | None) -> str:
    if unix_s is None:
        return ""
    return f"\n{datetime.timedelta(seconds=max(0, round(time.time() - unix_s)))}"
