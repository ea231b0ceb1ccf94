"""What a selection trains, written down before it begins, so that it can be continued.

out/plan.json          the data, and the settings of every candidate
    data/              the episodes to learn from and to estimate by, if estimates decide
    runs/<out>-<algorithm>/  one run for each candidate
    ope.json, ope.png  the estimates from data
    selection.json     measures, choice and published version; selection.png, report.md
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlcar.agents import ALGORITHMS
from rlcar.config import Config
from rlcar.datasets import Dataset
from rlcar.errors import UserError
from rlcar.evaluation.json_file import write_json
from rlcar.offline.held_out import SEED, SHARE
from rlcar.system import durable
from rlcar.system.regular_file import read_regular
from rlcar.types import Spec

# The baseline, which the others have to beat: it imitates, and so it cannot learn by driving.
FIRST = next(name for name, one in ALGORITHMS.items() if one.learns_offline > one.learns_online)


def candidates_for(spec: Spec, asked: list[str] | None = None) -> list[str]:
    """Returns the algorithms to train, the baseline first.

    By default these are all that learn from recorded data and support such observations and
    actions. Raises UserError for others.
    """
    able = [
        name
        for name, algorithm in ALGORITHMS.items()
        if algorithm.learns_offline and algorithm.supports(spec)
    ]
    refused = [name for name in asked or [] if name not in able]
    if refused:
        raise UserError(
            f"{', '.join(refused)} cannot learn from this data: choose among {', '.join(able)}"
        )
    chosen = able if not asked else [name for name in able if name in asked]
    return sorted(chosen, key=lambda name: name != FIRST)


def keep_plan(
    out: Path, dataset: Dataset, held_out: Dataset | None, configs: Mapping[str, Config]
) -> None:
    """Writes the plan; raises UserError if the folder holds another one."""
    plan: dict[str, Any] = {
        "data_sha256": dataset.fingerprint,
        "held_out": None
        if held_out is None
        else {"share": SHARE, "seed": SEED, "data_sha256": held_out.fingerprint},
        "candidates": {
            name: json.loads(config.model_dump_json()) for name, config in configs.items()
        },
    }
    # The data may have moved since.
    for candidate in plan["candidates"].values():
        candidate["data"].pop("folder")
    path = out / "plan.json"
    try:
        earlier = json.loads(read_regular(path))
    except FileNotFoundError:
        with durable.explaining_write_errors(path):
            out.mkdir(parents=True, exist_ok=True)
            write_json(path, plan)
        return
    except ValueError:
        raise UserError(f"{path} cannot be read: remove {out}, or choose another --out") from None
    if earlier != plan:
        is_same_data = earlier.get("data_sha256") == plan["data_sha256"]
        what = "with other settings" if is_same_data else "from other data"
        raise UserError(
            f"{out} holds a selection {what}: repeat its options, or choose another --out"
        )
