"""The HTML pages of a sweep: table, parallel coordinates, learning curves; all work offline."""

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

# From the best to the worst. The last fifth of Viridis is too pale on white.
_SCALE = sample_colorscale("Viridis", [0.0, 0.2, 0.4, 0.6, 0.8])
_MARK_GAP = 1.15  # least ratio of two marks on a logarithmic axis
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .7rem; text-align: right; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
tr.best { background: #eef7ee; font-weight: 600; }
.table { overflow-x: auto; }
"""


def index_page(sweep: SweepConfig, results: Sequence[TrialResult]) -> str:
    """Returns the table of all trials, the best first, with links to the other pages."""
    heads = ["trial", "status", sweep.metric, "at env steps", "env steps", "seconds", "failures"]
    heads += list(sweep.space)
    rows = []
    for rank, result in enumerate(results):
        score = result.score
        cells = [
            result.name,
            result.status if not result.reason else f"{result.status} ({result.reason})",
            format_value(score.value) if score else "–",
            f"{score.env_steps:,}" if score else "–",
            f"{result.env_steps:,}",
            f"{result.train_seconds:.0f}",
            str(result.failures),
            *(format_value(result.settings.get(name)) for name in sweep.space),
        ]
        kind = ' class="best"' if rank == 0 and score else ""
        rows.append(f"<tr{kind}>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells))
    better = "lower is better" if sweep.direction == "min" else "higher is better"
    title = html.escape(f"Sweep {sweep.name}")
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>\n'
        f"<style>{_STYLE}</style>\n<h1>{title}</h1>\n"
        f"<p>{len(results)} trials of {sweep.budget.env_steps:,} env steps; "
        f"{html.escape(sweep.metric)}, {better}.</p>\n"
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
    """Returns a page with one line for each trial, through its settings to its score."""
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
    """Returns a page with the metric of each trial over its env steps, the best in front."""
    figure = go.Figure()
    count = max(1, len(results) - 1)
    for rank, result in reversed(list(enumerate(results))):
        rows = [row for row in result.curve if row.get(sweep.metric) is not None]
        if not rows:
            continue
        hover_texts = [
            "<br>".join(
                f"{name} = {format_value(value)}" for name, value in row["settings"].items()
            )
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
            customdata=hover_texts,
            hovertemplate="%{x:,} env steps: %{y:.4g}<br>%{customdata}",
            legendrank=1000 + rank,
        )
    figure.update_xaxes(title="env steps", rangemode="tozero")
    figure.update_yaxes(title=sweep.metric)
    figure.update_layout(template="plotly_white")
    return _page(figure, f"{sweep.name}: learning curves, the best trial first")


def format_value(value: object) -> str:
    """Formats a setting or a figure with four significant digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)


def _axis(name: str, dimension: Dimension, values: Sequence[Any]) -> dict[str, Any]:
    if dimension.choice is not None:
        # The axis shows places in the list of choices, as a choice need not be a number.
        texts = [json.dumps(value) for value in dimension.choice]
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
    """Returns both ends, and 1, 2 and 5 times the powers of ten between them.

    Leaves out marks so close to an end that their labels would overlap.
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
    return [low, *(mark for mark in marks if _MARK_GAP * low < mark < high / _MARK_GAP), high]


def _bare(text: str) -> str:
    return text.strip('"')


def _page(figure: go.Figure, title: str) -> str:
    figure.update_layout(title={"text": html.escape(title)}, font={"size": 14})
    page: str = figure.to_html(
        include_plotlyjs=True, full_html=True, default_height="92vh", config={"displaylogo": False}
    )
    # Plotly writes no title, and a browser tab without one shows the path of the file.
    return page.replace("<head>", f"<head><title>{html.escape(title)}</title>", 1)
