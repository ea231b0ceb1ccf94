"""The pages of a sweep: a table, parallel coordinates, learning curves; each one file, offline."""

import html
import json
import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from cluster.sweeps.config import SweepConfig
from cluster.sweeps.history import TrialResult
from cluster.sweeps.search_space import Dimension

# From the best to the worst; the last fifth of Viridis is too pale on white.
_SCALE = sample_colorscale("Viridis", [0.0, 0.2, 0.4, 0.6, 0.8])
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .7rem; text-align: right; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
tr.best { background: #eef7ee; font-weight: 600; }
.table { overflow-x: auto; }
"""


def index_page(sweep: SweepConfig, results: Sequence[TrialResult]) -> str:
    """The table of all trials, the best first, with links to the other pages."""
    heads = ["trial", "status", sweep.metric, "at env steps", "env steps", "seconds", "failures"]
    heads += list(sweep.space)
    rows = []
    for rank, result in enumerate(results):
        score = result.score
        cells = [
            result.name,
            result.status if not result.reason else f"{result.status} ({result.reason})",
            shown(score.value) if score else "–",
            f"{score.env_steps:,}" if score else "–",
            f"{result.env_steps:,}",
            f"{result.train_seconds:.0f}",
            str(result.failures),
            *(shown(result.settings.get(name)) for name in sweep.space),
        ]
        kind = ' class="best"' if rank == 0 and score else ""
        rows.append(f"<tr{kind}>" + "".join(f"<td>{html.escape(one)}</td>" for one in cells))
    best = "better is less" if sweep.direction == "min" else "better is more"
    title = html.escape(f"Sweep {sweep.name}")
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>\n'
        f"<style>{_STYLE}</style>\n<h1>{title}</h1>\n"
        f"<p>{len(results)} trials of {sweep.budget.env_steps:,} env steps; "
        f"{html.escape(sweep.metric)}, {best}.</p>\n"
        '<p><a href="parallel_coordinates.html">Parallel coordinates</a> · '
        '<a href="learning_curves.html">Learning curves</a> · <a href="best.yaml">best.yaml</a> · '
        '<a href="results.csv">results.csv</a> · <a href="results.json">results.json</a></p>\n'
        '<div class="table"><table><thead><tr>'
        + "".join(f"<th>{html.escape(head).replace('.', '.<wbr>')}</th>" for head in heads)
        + "</tr></thead>\n<tbody>"
        + "\n".join(rows)
        + "</tbody></table></div>\n</html>\n"
    )


def parallel_page(sweep: SweepConfig, results: Sequence[TrialResult]) -> str:
    """One line a trial through its settings to its score; drag along an axis to select."""
    scored = [result for result in results if result.score]
    scores = [result.score.value for result in scored if result.score]
    axes = [
        _axis(name, dimension, [result.settings[name] for result in scored])
        for name, dimension in sweep.space.items()
    ]
    line = {
        "color": scores,
        "colorscale": _SCALE,
        "reversescale": sweep.direction == "max",
        "showscale": True,
    }
    figure = go.Figure(
        go.Parcoords(
            dimensions=[*axes, {"label": sweep.metric, "values": scores}],
            line=line,
            labelangle=-12,
            labelside="bottom",
        )
    )
    figure.update_layout(margin={"l": 90, "r": 60, "t": 70, "b": 140})
    return _page(figure, f"{sweep.name}: {len(scored)} trials, from settings to {sweep.metric}")


def curves_page(sweep: SweepConfig, results: Sequence[TrialResult]) -> str:
    """The metric of each trial over its env steps, the best in the foreground."""
    figure = go.Figure()
    count = max(1, len(results) - 1)
    for rank, result in reversed(list(enumerate(results))):
        rows = [row for row in result.curve if row.get(sweep.metric) is not None]
        if not rows:
            continue
        said = [
            "<br>".join(f"{name} = {shown(value)}" for name, value in row["settings"].items())
            for row in rows
        ]
        figure.add_scatter(
            x=[row["env_steps"] for row in rows],
            y=[row[sweep.metric] for row in rows],
            name=f"{result.name} ({result.status})",
            mode="lines+markers",
            line={
                "color": sample_colorscale(_SCALE, rank / count)[0],
                "width": 3.5 if rank == 0 else 1.5,
            },
            marker={"size": 5},
            customdata=said,
            hovertemplate="%{x:,} env steps: %{y:.4g}<br>%{customdata}",
            legendrank=1000 + rank,
        )
    figure.update_xaxes(title="env steps", rangemode="tozero")
    figure.update_yaxes(title=sweep.metric)
    figure.update_layout(template="plotly_white")
    return _page(figure, f"{sweep.name}: learning curves, the best trial first")


def shown(value: Any) -> str:
    """A setting or a figure for people: four digits are enough."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)


def _axis(name: str, dimension: Dimension, values: Sequence[Any]) -> dict[str, Any]:
    if dimension.choice is not None:
        # By place in the list: what can be chosen need not be a number.
        texts = [json.dumps(one) for one in dimension.choice]
        places = [texts.index(json.dumps(value)) for value in values]
        ticks = {"tickvals": list(range(len(texts))), "ticktext": [_bare(text) for text in texts]}
        return {"label": name, "values": places, "range": [-0.3, len(texts) - 0.7], **ticks}
    low, high = dimension.bounds
    if dimension.kind != "loguniform":
        return {"label": name, "values": list(values), "range": [low, high]}
    marks = _log_marks(low, high)
    return {
        "label": name,
        "values": [math.log10(value) for value in values],
        "range": [math.log10(low), math.log10(high)],
        "tickvals": [math.log10(mark) for mark in marks],
        "ticktext": [f"{mark:.3g}" for mark in marks],
    }


def _log_marks(low: float, high: float) -> list[float]:
    """Both ends, and the powers of ten, with their 2- and 5-folds, between them."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
    return [low, *(mark for mark in marks if 1.15 * low < mark < high / 1.15), high]


def _bare(text: str) -> str:
    return text.strip('"')


def _page(figure: go.Figure, title: str) -> str:
    figure.update_layout(title={"text": html.escape(title)}, font={"size": 14})
    page: str = figure.to_html(
        include_plotlyjs=True, full_html=True, default_height="92vh", config={"displaylogo": False}
    )
    # plotly writes no title, and a tab without one shows the file's path.
    return page.replace("<head>", f"<head><title>{html.escape(title)}</title>", 1)
