"""Does a curriculum go on at the right stage and attempt after kill -9 at random moments?

    python benchmarks/curriculum_kills.py [--kills 50] [--seed 0] [--minutes 20]

Trains small curricula of `tests/support/reaching.py` in a process that is killed again and again,
after a random time from the moment at which it holds the folder. After every kill the record must
open, and the next process must continue exactly it: the journal keeps all of its lines, and no
checkpoint of the present attempt is lost. At the end the observation statistics of the last learner
count exactly the env steps of all attempts that it came from. Writes
benchmarks/results/curriculum_kills.json and prints `kills_resumed`.
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "curriculum_kills.json"
LIMIT_S = 1800.0  # of one process; a machine that does many other things needs minutes
_POLL_S = 0.02
_FILE = """
name: reaching
base:
  preset: ppo
  mode: test
  env: "tests.support.reaching:Reaching-v0"
  set: {training.cars: 8, training.block_length: 32, training.evaluate_every_env_steps: 512,
        training.checkpoint_every_s: 1.0e-9, training.log_every_s: 1.0e-9, ppo.epochs: 4}
confirmation_episodes: 16
defaults: {mean_reward: -100.0, max_env_steps: 2048, min_episodes: 1000000}
stages:
  - {name: near}
  - {name: wider, set: {environment.settings.farthest: 1.2}}
  - {name: far, set: {environment.settings.farthest: 1.5}}
"""


class Seen(NamedTuple):
    """What the disk says of a curriculum between two processes."""

    lines: list[str]  # complete ones of the journal
    env_steps: int  # of the newest checkpoint of the present attempt
    place: tuple[int, int, str]  # stage, attempt, phase


class Kills(NamedTuple):
    """The result of a series of kills."""

    kills: int
    problems: list[str]
    places: list[tuple[int, int, str]]  # where each kill met the curriculum
    curricula: int


def kill_repeatedly(
    runs: Path, kills: int, seed: int, longest_s: float = 5.0, until_s: float = math.inf
) -> Kills:
    """Kills curricula `kills` times; returns every violation that it has found.

    Each process lives for at most `longest_s`. From the time `until_s` of `time.monotonic` on there
    are no more kills.
    """
    generator = random.Random(seed)
    file = runs / "reaching.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(_FILE)
    problems: list[str] = []
    places: list[tuple[int, int, str]] = []
    number = 1
    while len(places) < kills and time.monotonic() < until_s:
        folder = runs / f"tiny{number}"
        before = look(folder)
        is_over = not _run(file, folder, generator.uniform(0.0, longest_s))
        now = look(folder)
        problems += compare(before, now, folder.name)
        if is_over:
            problems += check_end(folder)
            number += 1
        elif now is not None:
            places.append(now.place)
    folder = runs / f"tiny{number}"
    before = look(folder)
    _run(file, folder, None)
    problems += compare(before, look(folder), folder.name) + check_end(folder)
    return Kills(len(places), problems, places, number)


def look(folder: Path) -> Seen | None:
    """Reads a curriculum as a resumed process would; None before its first event."""
    from rlcar.storage import checkpoint
    from rlcar.training.curriculum.record import open_record, run_folder

    if not (folder / "curriculum.json").exists():
        return None
    state = open_record(folder).state
    save = checkpoint.latest_sound(run_folder(folder, state.run) / "checkpoints")
    # An incomplete last line was not yet promised to anybody, and the next process drops it.
    lines = (folder / "journal.jsonl").read_text().rpartition("\n")[0].splitlines()
    env_steps = 0 if save is None else save.env_steps
    return Seen(lines, env_steps, (state.stage, state.attempt, str(state.phase)))


def compare(before: Seen | None, now: Seen | None, name: str) -> list[str]:
    """Says what a process has lost of what was on the disk before it."""
    if before is None:
        return []
    if now is None:
        return [f"{name}: the record is gone"]
    problems = []
    if now.lines[: len(before.lines)] != before.lines:
        problems.append(f"{name}: the journal lost lines after {before.place}")
    if len(now.lines) == len(before.lines) and now.place != before.place:
        problems.append(f"{name}: {before.place} became {now.place} without an event")
    if now.place == before.place and now.env_steps < before.env_steps:
        problems.append(f"{name}: {before.env_steps} env steps of {now.place} became less")
    return problems


def check_end(folder: Path) -> list[str]:
    """Says what is wrong with a curriculum that has ended."""
    from rlcar.agents import make_agent
    from rlcar.config import load_config
    from rlcar.evaluation.environment import spec_of
    from rlcar.storage import checkpoint
    from rlcar.training.curriculum.carried import load_statistics
    from rlcar.training.curriculum.record import open_record, run_folder

    state = open_record(folder).state
    problems = []
    if str(state.phase) != "done" or state.runs != (1, 1, 1):
        problems.append(f"{folder.name}: it ended in {state.phase} with the runs {state.runs}")
    save = checkpoint.latest_sound(run_folder(folder, state.run) / "checkpoints")
    assert save is not None
    config = load_config(save.path / "config.json")
    found = load_statistics(make_agent(config, spec_of(config)).learner, save)
    driven = sum(
        checkpoint.latest(run_folder(folder, (stage, 1)) / "checkpoints").env_steps  # type: ignore[union-attr]
        for stage in range(3)
    )
    if round(found["observation"].observations) != driven:
        problems.append(
            f"{folder.name}: {found['observation'].observations} of {driven} are counted"
        )
    return problems


def _run(file: Path, folder: Path, kill_after_s: float | None) -> bool:
    """Runs one process; returns whether it was killed, and False if it came to its end."""
    command = [sys.executable, "-m", "rlcar.cli", "train", "--mode", "curriculum", "--local"]
    command += ["--curriculum", str(file), "--runs", str(folder.parent), "--name", folder.name]
    command += ["--resume", "auto"]
    with (folder.parent / f"{folder.name}.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
        deadline_s = time.monotonic() + LIMIT_S
        try:
            if kill_after_s is not None:
                while process.poll() is None and not _holds(folder, process.pid):
                    _require(time.monotonic() < deadline_s, f"{folder} does not begin")
                    time.sleep(_POLL_S)
                try:
                    process.wait(kill_after_s)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    return True
            code = process.wait(LIMIT_S)
        finally:
            process.kill()
            process.wait()
    _require(code == 0, f"exit code {code}: {_tail(folder)}")
    return False


def _holds(folder: Path, pid: int) -> bool:
    from rlcar.system import process_state

    return process_state.read(folder).get("pid") == pid


def _require(is_true: bool, problem: str) -> None:
    if not is_true:
        raise RuntimeError(problem)


def _tail(folder: Path) -> str:
    lines = (folder.parent / f"{folder.name}.log").read_text(errors="replace").splitlines()
    return " | ".join(lines[-5:])


def main() -> None:
    """Kills, prints the figures and writes them."""
    from header import origin, print_header

    from rlcar.system.durable import replace_text

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e6)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print_header("jax")
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        until_s = began_s + 60.0 * options.minutes
        result = kill_repeatedly(Path(folder), options.kills, options.seed, until_s=until_s)
    for problem in result.problems:
        print(problem)
    met = {place: result.places.count(place) for place in sorted(set(result.places))}
    for (stage, attempt, phase), count in met.items():
        print(f"stage {stage + 1}, attempt {attempt}, {phase}: {count} kills")
    tree = {
        "kills": result.kills,
        "kills_resumed": result.kills - len(result.problems),
        "problems": result.problems,
        "curricula": result.curricula,
        "minutes": round((time.monotonic() - began_s) / 60, 1),
        "met": [[*place, count] for place, count in met.items()],
        "origin": origin(load),
    }
    replace_text(RESULTS, json.dumps(tree, indent=1) + "\n")
    print(f"figure kills={tree['kills']}")
    print(f"figure kills_resumed={tree['kills_resumed']}")


if __name__ == "__main__":
    main()
