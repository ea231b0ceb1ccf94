"""Draws docs/images/architecture.svg and import-law.svg; `python docs/images/draw.py` writes them.

The import law is read from pyproject.toml, so that the picture cannot contradict it.
"""

import tomllib
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parent
PROJECT = FOLDER.parents[1] / "pyproject.toml"

INK, LINE, PAPER = "#1f2933", "#52606d", "#ffffff"
PURE, PROCESSES, SERVING, DISK = "#e3f2e6", "#e1ecf9", "#fbeed9", "#eceff1"
FONT = "font-family='Helvetica, Arial, sans-serif'"


def _text(x: float, y: float, text: str, size: int = 13, style: str = "") -> str:
    return (
        f"<text x='{x:g}' y='{y:g}' {FONT} font-size='{size}' fill='{INK}' "
        f"text-anchor='middle' {style}>{escape(text)}</text>"
    )


def _box(x: float, y: float, width: float, height: float, lines: list[str], fill: str) -> str:
    """A rounded box; its first line is bold, and all lines are centred."""
    parts = [
        f"<rect x='{x:g}' y='{y:g}' width='{width:g}' height='{height:g}' rx='8' "
        f"fill='{fill}' stroke='{LINE}'/>"
    ]
    top = y + height / 2 - 8 * (len(lines) - 1) + 5
    for index, line in enumerate(lines):
        size, style = (14, "font-weight='bold'") if index == 0 else (12, "")
        parts.append(_text(x + width / 2, top + 16 * index, line, size, style))
    return "".join(parts)


def _group(x: float, y: float, width: float, height: float, title: str) -> str:
    return (
        f"<rect x='{x:g}' y='{y:g}' width='{width:g}' height='{height:g}' rx='10' fill='none' "
        f"stroke='{LINE}' stroke-dasharray='5 4'/>"
        f"<text x='{x + 12:g}' y='{y + 20:g}' {FONT} font-size='12' fill='{LINE}'>"
        f"{escape(title)}</text>"
    )


def _arrow(
    points: list[tuple[float, float]], label: str = "", at: tuple[float, float] = (0, 0)
) -> str:
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    line = (
        f"<polyline points='{path}' fill='none' stroke='{INK}' stroke-width='1.6' "
        "marker-end='url(#head)'/>"
    )
    return line + (_text(*at, label, 12, "font-style='italic'") if label else "")


def _picture(width: int, height: int, title: str, parts: list[str]) -> str:
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' "
        f"width='{width}' height='{height}' role='img'>\n<title>{escape(title)}</title>\n"
        "<defs><marker id='head' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='7' "
        f"markerHeight='7' orient='auto'><path d='M0 0L10 5L0 10z' fill='{INK}'/></marker></defs>\n"
        f"<rect width='{width}' height='{height}' fill='{PAPER}'/>\n"
    )
    return head + "\n".join(parts) + "\n</svg>\n"


def architecture() -> str:
    """What runs where, and what travels between the processes."""
    parts = [
        _group(15, 15, 300, 265, "simulator process, one for each free core"),
        _box(40, 50, 250, 62, ["rlcar/sim, rlcar/track", "N cars on N tracks, fixed point"], PURE),
        _box(
            40, 178, 250, 78, ["rlcar/rollout", "the policy drives the cars", "for one block"], PURE
        ),
        _arrow([(110, 112), (110, 178)], "TimeStep", (75, 149)),
        _arrow([(220, 178), (220, 112)], "action", (247, 149)),
        _group(455, 15, 330, 265, "learner process, on the GPU if there is one"),
        _box(480, 50, 280, 62, ["rlcar/replay", "recent blocks; limits the train steps"], PURE),
        _box(
            480,
            178,
            280,
            78,
            ["rlcar/agents", "world model, imagination,", "actor and critic"],
            PURE,
        ),
        _arrow([(620, 112), (620, 178)], "Batch [B, T]", (665, 149)),
        _arrow([(290, 200), (385, 200), (385, 81), (480, 81)], "Trajectory", (388, 62)),
        _text(388, 77, "[T, N]", 12, "font-style='italic'"),
        _arrow([(480, 236), (290, 236)], "Weights (version n)", (385, 255)),
        _box(
            15,
            310,
            770,
            56,
            [
                "driver process: cluster/training/loop.py",
                "starts, feeds and replaces the others; evaluates; saves",
            ],
            PROCESSES,
        ),
        _arrow([(165, 310), (165, 280)]),
        _arrow([(620, 310), (620, 280)]),
        _box(15, 420, 170, 62, ["runs/<name>/", "metrics, checkpoints"], DISK),
        _box(240, 420, 160, 62, ["rlcar/registry", "versions and aliases"], DISK),
        _box(465, 420, 165, 62, ["serve/", "NumPy policy, sessions"], SERVING),
        _box(715, 420, 70, 62, ["cars"], PAPER),
        _arrow([(100, 366), (100, 420)], "checkpoint", (142, 398)),
        _arrow([(185, 451), (240, 451)], "publish", (212, 443)),
        _arrow([(400, 451), (465, 451)], "champion", (432, 443)),
        _arrow([(630, 440), (715, 440)]),
        _arrow([(715, 464), (630, 464)]),
        _text(672, 433, "action", 12, "font-style='italic'"),
        _text(672, 480, "observation", 12, "font-style='italic'"),
    ]
    return _picture(800, 500, "What runs where in rlcar, and what travels between", parts)


def import_law() -> str:
    """The layers of each package, from pyproject.toml; a layer imports only those below it."""
    contracts = tomllib.loads(PROJECT.read_text())["tool"]["importlinter"]["contracts"]
    layers = {
        contract["containers"][0]: contract["layers"]
        for contract in contracts
        if contract["type"] == "layers" and "*" not in contract["containers"][0]
    }
    width, row = 260, 30
    tallest = max(len(rows) for rows in layers.values())
    parts = []
    fills = {"rlcar": PURE, "cluster": PROCESSES, "serve": SERVING}
    for column, package in enumerate(("cluster", "rlcar", "serve")):
        x = 15 + column * (width + 15)
        top = 40 + (tallest - len(layers[package])) * row
        parts.append(_text(x + width / 2, top - 10, f"{package}/", 15, "font-weight='bold'"))
        for index, layer in enumerate(layers[package]):
            y = top + index * row
            parts.append(
                f"<rect x='{x}' y='{y}' width='{width}' height='{row - 4}' rx='5' "
                f"fill='{fills[package]}' stroke='{LINE}'/>"
                + _text(x + width / 2, y + 18, layer.replace(" | ", "   |   "), 12)
            )
    height = 40 + tallest * row + 30
    notes = (
        "A layer may import the layers below it. Neighbours in one row do not import each other."
    )
    parts.append(_text(15 + 1.5 * width + 15, height - 10, notes, 12))
    return _picture(3 * (width + 15) + 15, height, "The import law", parts)


PICTURES = {"architecture.svg": architecture, "import-law.svg": import_law}


if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (FOLDER / name).write_text(draw())
