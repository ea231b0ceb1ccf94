"""What a server promises under attack, and how results are shown: a table, a picture, figures."""

from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from benchmarks.attacks import ATTACKS
from rlcar.system.durable import replacing

NONE, PAGE_NONE = "none", "page_none"  # the names of no attack at all, without and with the page


def needs_page(name: str) -> bool:
    """Whether an attack, or the absence of one, is measured on a server with the page."""
    return name == PAGE_NONE or (name in ATTACKS and ATTACKS[name].needs_page)


class Bounds(NamedTuple):
    """What a lane promises under any attack; None: nothing."""

    memory_mb: float = 100.0
    honest_p99_ms: float | None = 50.0
    honest_refused: int | None = 0
    health_max_ms: float | None = 100.0
    recovery_s: float = 5.0
    more_files: int = 16  # open at the end than before


BOUNDS = {
    "realtime": Bounds(),
    "ray": Bounds(),
    "direct": Bounds(memory_mb=300.0, honest_p99_ms=None, honest_refused=None, health_max_ms=None),
}


def broken(lane: str, found: dict[str, Any]) -> list[str]:
    """Names the bounds that a result breaks; a figure that is missing breaks its bound."""
    limits = BOUNDS[lane]._asdict()
    return [
        name
        for name, limit in limits.items()
        if limit is not None and (found[name] is None or found[name] > limit)
    ]


def table_of(results: dict[str, dict[str, Any]]) -> Table:
    """A row for each lane and attack; figures that break their bound are red."""
    columns = {
        "p50 ms": "honest_p50_ms",
        "p99 ms": "honest_p99_ms",
        "refused": "honest_refused",
        "health max ms": "health_max_ms",
        "memory MB": "memory_mb",
        "recovery s": "recovery_s",
        "files": "more_files",
    }
    table = Table("lane", "attack", "item")
    for heading in columns:
        table.add_column(heading, justify="right")
    for lane, attacks in results.items():
        for name, found in attacks.items():
            bad = broken(lane, found)
            row = [lane, name, ATTACKS[name].item if name in ATTACKS else ""]
            for key in columns.values():
                text = "never" if found[key] is None else f"{found[key]:g}"
                row.append(f"[red]{text}[/red]" if key in bad else text)
            table.add_row(*row)
    return table


def write_picture(path: Path, results: dict[str, dict[str, Any]]) -> None:
    """Draws p99 and memory of each lane and attack as bars on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(name for attacks in results.values() for name in attacks))
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 0.45 * len(names) + 1.8), sharey=True)
    height = 0.8 / len(results)
    bounds = BOUNDS["realtime"]
    for axis, key, title, least, bound in zip(
        axes,
        ("honest_p99_ms", "memory_mb"),
        ("p99 of honest clients, ms", "growth of the server's memory, MB"),
        (0.5, 0.1),
        (bounds.honest_p99_ms, bounds.memory_mb),
        strict=True,
    ):
        for index, (lane, attacks) in enumerate(results.items()):
            places = [names.index(name) + index * height - 0.4 + height / 2 for name in attacks]
            values = [max(least, found[key] or least) for found in attacks.values()]
            axis.barh(places, values, height, label=lane)
        axis.axvline(bound, color="black", linewidth=1, linestyle="--", label="bound")
        axis.set_xscale("log")
        axis.set_xlim(left=least)
        axis.set_title(title)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    axes[0].legend(loc="upper right")
    figure.tight_layout()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    pyplot.close(figure)


def line_of(found: dict[str, Any]) -> str:
    """What is printed after each attack."""
    keys = ("honest_p50_ms", "honest_p99_ms", "honest_refused", "health_max_ms", "memory_mb")
    text = " ".join(f"{key}={found[key]}" for key in (*keys, "recovery_s"))
    return f"{text} refusals={found['honest_refusals']} broken={found['broken']}"


def print_figures(results: dict[str, dict[str, Any]]) -> None:
    """Prints the worst of each lane over all attacks, and the number of broken bounds."""
    for lane, attacks in results.items():
        for key in ("honest_p99_ms", "honest_refused", "health_max_ms", "memory_mb", "recovery_s"):
            values = [found[key] for name, found in attacks.items() if name in ATTACKS]
            if values:
                worst = "never" if None in values else max(values)
                print(f"figure attack_{lane}_worst_{key}={worst}")
        number = sum(len(found["broken"]) for found in attacks.values())
        print(f"figure attack_{lane}_bounds_broken={number}")
