"""Does memory stay flat while a large data set is recorded, validated and trained on?

Runs the commands of a user, each in a process of its own, and samples its resident memory once a
second. The training passes over the data several times, with few train steps. The slope is that of
a line through the samples of the second half of the training.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from header import print_header
from processes import program

from rlcar.datasets import Dataset
from rlcar.runs.metrics_file import read_metrics

MB = 1e6
# What pandas would hold of a transition of the race: two observations, action, reward, two ends,
# episode, step and log-probability.
BYTES_A_TRANSITION = 2 * 6 * 4 + 2 * 4 + 4 + 2 + 8 + 4 + 4


class Watched(NamedTuple):
    """What a command used."""

    time_s: np.ndarray  # [M] since its start
    rss_mb: np.ndarray  # [M]
    cpu_s: float

    @property
    def peak_mb(self) -> float:
        """The largest sample."""
        return float(self.rss_mb.max())


def watch(words: list[str], until: Path | None = None, env_steps: int = 0) -> Watched:
    """Runs `rlcar` with these words; ends sampling when the run `until` has read `env_steps`."""
    began_s, times, sizes, cpu_s = time.monotonic(), [0.0], [0.0], 0.0
    with program([sys.executable, "-m", "rlcar", *words], within_s=600.0) as process:
        is_done = False
        while process.poll() is None:
            with contextlib.suppress(OSError, IndexError):  # it ends just now
                fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
                cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
                is_done = is_done or (until is not None and steps_read(until) >= env_steps)
                if not is_done:
                    sizes.append(int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / MB)
                    times.append(time.monotonic() - began_s)
            time.sleep(1.0)
    if process.returncode:
        raise RuntimeError(f"rlcar {' '.join(words)} ended with {process.returncode}")
    return Watched(np.array(times), np.array(sizes), cpu_s)


def steps_read(run: Path) -> int:
    """Returns the env steps in the last row of a run's metrics; 0 before there is one."""
    rows = read_metrics(run / "metrics.jsonl")
    return int(rows[-1]["env_steps"]) if rows else 0


def slope_mb_per_min(watched: Watched) -> float:
    """Returns the slope of a line through the samples of the second half of the time."""
    is_late = watched.time_s > watched.time_s[-1] / 2
    return 60.0 * float(np.polyfit(watched.time_s[is_late], watched.rss_mb[is_late], 1)[0])


def measure_record(data: Path, transitions: int) -> None:
    """Records a data set and prints the figures."""
    words = ["data", "record", str(data), "careful@0.1-0.4", "--transitions", str(transitions)]
    print_figures("record", watch(words), Dataset.open(data))


def measure_train(data: Path, runs: Path, algorithm: str, passes: int) -> None:
    """Trains for several passes over a data set and prints the figures."""
    found = Dataset.open(data)
    env_steps = passes * (found.transitions + found.episodes)  # an episode has one more step
    trained = watch(
        [
            *("train", "--local", "--data", str(data), "--algorithm", algorithm),
            *("--runs", str(runs), "--name", "flat"),
            *("--set", f"training.env_steps={env_steps}"),
            *("--set", f"training.evaluate_every_env_steps={env_steps}"),
            *("--set", "replay.samples_per_insert=0.02"),
        ],
        runs / "flat",
        env_steps,
    )
    print_figures("train", trained, found)
    print(f"figure train_rss_slope_mb_per_min={slope_mb_per_min(trained):.2f}")
    print(f"figure train_transitions_per_cpu_s={env_steps / trained.cpu_s:.0f}")


def print_figures(name: str, watched: Watched, data: Dataset) -> None:
    """Prints peak, peak relative to the size of the data in memory, and CPU time."""
    in_memory_mb = data.transitions * BYTES_A_TRANSITION / MB
    print(f"{data.transitions:,} transitions are {in_memory_mb:,.0f} MB in memory")
    print(f"figure {name}_rss_mb={watched.peak_mb:.0f}")
    print(f"figure {name}_rss_over_data={watched.peak_mb / in_memory_mb:.3f}")
    print(f"figure {name}_cpu_s={watched.cpu_s:.0f}", flush=True)


def main() -> None:
    """Measures in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transitions", type=int, default=10_000_000)
    parser.add_argument("--algorithm", default="iql")
    parser.add_argument("--passes", type=int, default=4, help="of the training")
    parser.add_argument("--data", type=Path, help="a data set of the race, in place of recording")
    arguments = parser.parse_args()
    print_header("jax", "pyarrow")
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data
        if data is None:
            data = Path(folder) / "data"
            measure_record(data, arguments.transitions)
        validated = watch(["data", "validate", str(data)])
        print_figures("validate", validated, Dataset.open(data))
        measure_train(data, Path(folder) / "runs", arguments.algorithm, arguments.passes)


if __name__ == "__main__":
    main()
