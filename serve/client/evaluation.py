"""What driving laps and acting in episodes share: reports, figures of the connection, output."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from rlcar.system.tables import make_table
from serve.client.address import ServerError
from serve.client.client import DriveClient
from serve.client.laps import Lap


class Reports:
    """Reports laps or episodes that have ended, and counts what became of the reports.

    A server that cannot be reached, or has no rollouts, does not stop the drive.
    """

    def __init__(self, client: DriveClient):
        self._client = client
        self._statuses: Counter[str] = Counter()

    def add(self, laps: Sequence[Lap]) -> None:
        """Reports laps, if there are any."""
        if not laps:
            return
        try:
            self._statuses.update(result.status for result in self._client.report_laps(laps))
        except ServerError:
            self._statuses["not reported"] += len(laps)

    def figures(self, what: str) -> dict[str, int]:
        """Returns how many of them, called `what`, the server counted and how many it never got."""
        return {
            f"{what}_counted": self._statuses["counted"],
            f"{what}_not_reported": self._statuses["not reported"],
        }


def connection_figures(client: DriveClient) -> dict[str, Any]:
    """Returns how many requests a client made, how long they took, and what went wrong."""
    counts = client.counts
    return {
        "requests": sum(counts.sources.values()),
        "latency_p50_ms": counts.latency_ms(50.0),
        "latency_p99_ms": counts.latency_ms(99.0),
        "holds": counts.sources["hold"],
        "fallbacks": counts.sources["fallback"],
        "timeouts": counts.timeouts,
        "reconnects": max(0, counts.connects - 1),
    }


def print_table(
    title: str, columns: Mapping[str, str], result: Mapping[str, Any], console: Console
) -> None:
    """Prints the given columns, and those of the connection, as a table of one row."""
    connection = {
        "p50": f"{result['latency_p50_ms']:.2f} ms",
        "p99": f"{result['latency_p99_ms']:.2f} ms",
        "holds": str(result["holds"]),
        "fallbacks": str(result["fallbacks"]),
    }
    row = {**columns, **connection}
    table = make_table(*row, right=tuple(row), title=title)
    table.add_row(*row.values())
    console.print(table)


def print_figures(result: Mapping[str, Any], console: Console) -> None:
    """Prints the numbers of a result, one per line."""
    for name, value in result.items():
        if isinstance(value, int | float):
            console.print(f"figure {name}={value:.6g}", highlight=False)
