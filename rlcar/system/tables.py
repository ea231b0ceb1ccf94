"""Tables that fit into the terminal: a long word continues on the next line and is never cut."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

_PLAIN: dict[str, Any] = {"box": box.SIMPLE_HEAD, "show_edge": False, "padding": (0, 1, 0, 0)}


def make_table(
    *headers: str, right: Sequence[str] = (), whole: Sequence[str] = (), **options: Any
) -> Table:
    """Returns an empty table, by default one with few lines; `options` are those of Rich's tables.

    `right` names the columns of numbers, which stand on the right. Neither they nor the columns
    named `whole` wrap.
    """
    table = Table(**_PLAIN | options)
    for header in headers:
        is_right = header in right
        table.add_column(
            escape(header),
            justify="right" if is_right else "left",
            overflow="fold",
            no_wrap=is_right or header in whole,
        )
    return table


def make_ruled_table(*headers: str) -> Table:
    """Returns an empty table with lines between its rows, for cells of several lines."""
    return make_table(*headers, box=box.HEAVY_HEAD, show_edge=True, padding=(0, 1), show_lines=True)
