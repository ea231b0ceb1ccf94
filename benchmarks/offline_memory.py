"""Does memory stay flat while a large data set is recorded, validated and trained on?

    python benchmarks/offline_memory.py [--transitions 10000000]

Runs the commands of a user, each in a process of its own, and samples its resident memory four
times a second. The training passes over the data several times, with few train steps. The slope is
that of a line through the samples of the second half of the training. Writes its part of
benchmarks/results/offline.json.
"""

import argparse
import contextlib
import os
import resource
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from header import print_header
from offline_parts import keep
from processes import program

from rlcar.datasets import Dataset
from rlcar.runs.metrics_file import read_metrics

MB = 1e6
# What pandas would hold of a transition of the race: two observations, action, reward, two ends,
# episode, step and log-probability.
BYTES_A_TRANSITION = 2 * 6 * 4 + 2 * 4 + 4 + 2 + 8 + 4 + 4
RLCAR = ("-m", "rlcar")
PASS = """
import sys
from pathlib import Path
from rlcar.datasets import Dataset
episodes = Dataset.open(Path(sys.argv[1])).episodes_iter(seed=0)
print(f"{sum(len(episode.reward) for episode in episodes):,} transitions")
"""


class Watched(NamedTuple):
    """What a command used."""

    time_s: np.ndarray  # [M] since its start
    rss_mb: np.ndarray  # [M]
    cpu_s: float

    @property
    def peak_mb(self) -> float:
        """The largest sample."""
        return float(self.rss_mb.max())


def watch(words: Sequence[str], until: Path | None = None, env_steps: int = 0) -> Watched:
    """Runs Python with these words; ends sampling when the run `until` has read `env_steps`."""
    began_s, times, sizes, is_done = time.monotonic(), [0.0], [0.0], False
    cpu_before_s = cpu_of_children_s()
    with program([sys.executable, *words], within_s=600.0) as process:
        while process.poll() is None:
            with contextlib.suppress(OSError, IndexError):  # it ends just now
                fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
                is_done = is_done or (until is not None and steps_read(until) >= env_steps)
                if not is_done:
                    sizes.append(int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / MB)
                    times.append(time.monotonic() - began_s)
            time.sleep(0.25)
    if process.returncode:
        raise RuntimeError(f"python {' '.join(words)} ended with {process.returncode}")
    return Watched(np.array(times), np.array(sizes), cpu_of_children_s() - cpu_before_s)


def cpu_of_children_s() -> float:
    """Returns the CPU time of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def steps_read(run: Path) -> int:
    """Returns the env steps in the last row of a run's metrics; 0 before there is one."""
    rows = read_metrics(run / "metrics.jsonl")
    return int(rows[-1]["env_steps"]) if rows else 0


def slope_mb_per_min(watched: Watched) -> float:
    """Returns the slope of a line through the samples of the second half of the time."""
    is_late = watched.time_s > watched.time_s[-1] / 2
    return 60.0 * float(np.polyfit(watched.time_s[is_late], watched.rss_mb[is_late], 1)[0])


def measure_commands(data: Path, folder: Path) -> dict[str, Watched]:
    """Watches the commands that read a data set."""
    picture = str(folder / "coverage.png")
    return {
        "validate": watch([*RLCAR, "data", "validate", str(data)]),
        "coverage": watch([*RLCAR, "data", "coverage", str(data), "--out", picture]),
        "info": watch([*RLCAR, "data", "info", str(data)]),
        "pass": watch(["-c", PASS, str(data)]),
    }


def measure_train(data: Path, runs: Path, algorithm: str, env_steps: int) -> Watched:
    """Watches a training that reads so many env steps of a data set."""
    return watch(
        [
            *(*RLCAR, "train", "--local", "--data", str(data), "--algorithm", algorithm),
            *("--runs", str(runs), "--name", "flat"),
            *("--set", f"training.env_steps={env_steps}"),
            *("--set", f"training.evaluate_every_env_steps={env_steps}"),
            *("--set", "replay.samples_per_insert=0.02"),
        ],
        runs / "flat",
        env_steps,
    )


def figures_of(commands: Mapping[str, Watched], in_memory_mb: float) -> dict[str, float]:
    """Returns peak, peak relative to the size of the data in memory, and CPU time."""
    figures = {}
    for name, watched in commands.items():
        figures[f"{name}_rss_mb"] = watched.peak_mb
        figures[f"{name}_rss_over_data"] = watched.peak_mb / in_memory_mb
        figures[f"{name}_cpu_s"] = watched.cpu_s
    return figures


def main() -> None:
    """Measures in a temporary folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--transitions", type=int, default=10_000_000)
    parser.add_argument("--algorithm", default="iql")
    parser.add_argument("--passes", type=int, default=4, help="of the training")
    parser.add_argument("--data", type=Path, help="a data set of the race, in place of recording")
    options = parser.parse_args()
    print_header("jax", "pyarrow")
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as parent:
        folder, commands = Path(parent), {}
        data = options.data or folder / "data"
        if options.data is None:
            size = ("--transitions", str(options.transitions))
            recording = [*RLCAR, "data", "record", str(data), "careful@0.1-0.4", *size]
            commands["record"] = watch(recording)
        commands |= measure_commands(data, folder)
        found = Dataset.open(data)
        env_steps = options.passes * (found.transitions + found.episodes)  # one more of each
        trained = measure_train(data, folder / "runs", options.algorithm, env_steps)
        commands["train"] = trained
    in_memory_mb = found.transitions * BYTES_A_TRANSITION / MB
    figures = {
        "transitions": found.transitions,
        "data_mb": in_memory_mb,
        **figures_of(commands, in_memory_mb),
        "train_passes": options.passes,
        "train_rss_slope_mb_per_min": slope_mb_per_min(trained),
        "train_transitions_per_cpu_s": env_steps / trained.cpu_s,
    }
    keep("memory", {"memory": figures}, load_before, {"algorithm": options.algorithm})


if __name__ == "__main__":
    main()
