"""Figures of a data set: lengths, returns, ends and drivers."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from rlcar.datasets.dataset import Dataset, check, read_table
from rlcar.datasets.description import Part
from rlcar.datasets.episode import JOIN
from rlcar.errors import DatasetError

_COLUMNS = ("eps_id", "rewards", "terminateds", "action_logp", "policy", "source")


def summarise(
    data: Dataset, on_progress: Callable[[int], None] = lambda transitions: None
) -> dict[str, Any]:
    """Returns the figures of a data set as plain values; reads only a few columns."""
    groups: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    done = 0
    for part in data.parts:
        for key, table in _episode_tables(data, part).items():
            groups[key].append(table)
        done += part.transitions
        on_progress(done)
    drivers = []
    everything = np.concatenate([table for tables in groups.values() for table in tables])
    for (policy, source), tables in sorted(groups.items()):
        figures = _figures(np.concatenate(tables), data.transitions)
        drivers.append({"policy": policy, "source": source} | figures)
    moments = data.moments
    return {
        "folder": str(data.folder),
        "world": data.world.label,
        "observation_size": data.spec.observation_size,
        "image_shape": list(data.spec.image_shape) if data.spec.image_shape else None,
        "action_size": data.spec.action_size,
        "is_discrete": data.spec.is_discrete,
        "parts": len(data.parts),
        "bytes": sum(part.bytes for part in data.parts),
        "fingerprint": data.fingerprint,
        **_figures(everything, data.transitions),
        "drivers": drivers,
        "observations": [
            entry.model_dump()
            | {
                "mean": None if moments is None else float(moments.mean[index]),
                "standard_deviation": None
                if moments is None
                else float(moments.standard_deviation[index]),
            }
            for index, entry in enumerate(data.description.observation)
        ],
        "sources": [source.model_dump() for source in data.description.sources],
    }


def _episode_tables(data: Dataset, part: Part) -> dict[tuple[str, str], np.ndarray]:
    """Returns rows (steps, return, is terminal, knows probabilities) of a part's episodes."""
    path = data.folder / part.name
    table = read_table(path, data.spec, _COLUMNS)
    rewards = table.column("rewards").to_numpy()  # a null becomes NaN
    if len(rewards) != part.transitions or not np.isfinite(rewards).all():
        fault = (
            "rewards that are not finite"
            if len(rewards) == part.transitions
            else f"{len(rewards)} rows in place of {part.transitions}"
        )
        raise DatasetError(f"{path} has {fault}: {check(data.folder)}")
    numbers = table.column("eps_id").to_numpy()
    ends = np.append(np.flatnonzero(np.diff(numbers)), len(numbers) - 1)
    starts = np.append(0, ends[:-1] + 1)
    figures = np.stack(
        [
            ends - starts + 1.0,
            np.add.reduceat(rewards.astype(np.float64), starts),
            table.column("terminateds").to_numpy()[ends],
            _known(table, starts),
        ],
        axis=1,
    )
    policies, sources = (_names(table, name, starts, ends) for name in ("policy", "source"))
    keys = list(zip(policies, sources, strict=True))
    return {
        key: figures[[index for index, other in enumerate(keys) if other == key]]
        for key in set(keys)
    }


def _known(table: Any, starts: np.ndarray) -> np.ndarray:
    """Returns for each episode whether the probability of every action is known."""
    if "action_logp" not in table.column_names:
        return np.zeros(len(starts))
    is_known = ~np.isnan(table.column("action_logp").to_numpy())  # a null becomes NaN
    return np.logical_and.reduceat(is_known, starts)


def _names(table: Any, name: str, starts: np.ndarray, ends: np.ndarray) -> list[str]:
    """Returns one name for each episode; several that share an episode are joined."""
    if name not in table.column_names:
        return [""] * len(starts)
    column = table.column(name).combine_chunks()
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    names = [*column.dictionary.to_pylist(), ""]
    rows = column.indices.fill_null(len(names) - 1).to_numpy()
    return [
        JOIN.join(sorted({names[index] for index in rows[start : end + 1]}))
        if low != high
        else names[low]
        for low, high, start, end in zip(
            np.minimum.reduceat(rows, starts).tolist(),
            np.maximum.reduceat(rows, starts).tolist(),
            starts.tolist(),
            ends.tolist(),
            strict=True,
        )
    ]


def _figures(table: np.ndarray, all_transitions: int) -> dict[str, Any]:
    steps, returns, is_terminal, is_known = table.T
    return {
        "episodes": len(table),
        "transitions": int(steps.sum()),
        "share": float(steps.sum() / all_transitions),
        "mean_steps": float(steps.mean()),
        "mean_return": float(returns.mean()),
        "lowest_return": float(returns.min()),
        "highest_return": float(returns.max()),
        "terminal_rate": float(is_terminal.mean()),
        "known_probability_rate": float(is_known.mean()),
    }
