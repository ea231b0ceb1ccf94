"""How long do a backup, its repetition and a restoration take, relative to copying and checking?

    python benchmarks/backup.py [--mb 512] [--rounds 3]

First the disaster: trains and publishes a run, backs up, deletes everything, restores, compares all
bits and the actions of the model, and trains on, as does a copy that was never lost. Then the
speed, with random files of the sizes of checkpoints and of rows. Each round copies the same files
with `cp -a` and reads the copy with `sha256sum`, which is what a backup does at least. Caches are
warm in both.
"""

import argparse
import hashlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.header import print_header
from rlcar.registry import Registry
from rlcar.storage import checkpoint
from serve.policy.policy import load_policy

RLCAR = [sys.executable, "-m", "rlcar.cli"]
TRAIN = ["train", "--mode", "test", "--local", "--name", "first"]
LARGE_MB, SMALL_BYTES, SMALL_FILES = 16, 4000, 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # of the commands that it runs
    print_header()
    with tempfile.TemporaryDirectory(prefix="rlcar-backup-") as root:
        recover(Path(root) / "site")
        measure(Path(root) / "speed", options.mb, options.rounds)
    print(f"load average {os.getloadavg()[0]:.1f}")


def recover(site: Path) -> None:
    """Loses and restores an installation."""
    site.mkdir()
    rlcar(site, *TRAIN)
    rlcar(site, "models", "publish", "runs/first", "--alias", "champion")
    backup_s = timed(lambda: rlcar(site, "backup", "../backup"))
    undisturbed = site.parent / "undisturbed"
    shutil.copytree(site, undisturbed)
    before, acted = digests(site, "runs", "models"), actions(site)
    shutil.rmtree(site / "runs")
    shutil.rmtree(site / "models")
    restore_s = timed(lambda: rlcar(site, "restore", "../backup"))
    after = digests(site, "runs", "models")
    assert after == before
    assert actions(site) == acted
    for place in (site, undisturbed):
        continued = ["--local", "--set", "training.env_steps=2048"]
        rlcar(place, "train", "--resume", "runs/first", *continued)
    states = [newest_state(place) for place in (site, undisturbed)]
    rlcar(site, "backup", "../backup")
    size_bytes = sum((site / name).stat().st_size for name in before)
    figure("disaster_files", len(before))
    figure("disaster_bytes", size_bytes)
    figure("backup_s", backup_s)
    figure("restore_s", restore_s)
    figure("equal_files", sum(after[name] == before[name] for name in before))
    figure("equal_actions", int(actions(site) == acted))
    figure("equal_continuation", int(states[0] == states[1]))


def measure(root: Path, size_mb: int, rounds: int) -> None:
    """Compares the commands with `cp -a` and `sha256sum` of the same files."""
    site = root / "site"
    write_files(site, size_mb)
    size_bytes = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    copy, backup, restored = root / "copy", root / "backup", root / "restored"
    acts: dict[str, Callable[[], str]] = {
        "cp": lambda: run(["cp", "-a", str(site), str(copy)]),
        "sha256sum": lambda: run(["bash", "-c", f"find {copy} -type f | xargs sha256sum"]),
        "first": lambda: rlcar(site, "backup", str(backup)),
        "again": lambda: rlcar(site, "backup", str(backup)),
        "verify": lambda: rlcar(site, "backup", "verify", str(backup)),
        "restore": lambda: rlcar(site, "restore", str(backup), "--to", str(restored)),
    }
    times: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(rounds):
        for name, act in acts.items():
            times[name].append(timed(act))
        for folder in (copy, backup, restored):
            shutil.rmtree(folder)
    median_s = {name: statistics.median(all_s) for name, all_s in times.items()}
    reference_s = median_s["cp"] + median_s["sha256sum"]
    figure("bytes", size_bytes)
    for name, value_s in median_s.items():
        figure(f"speed_{name}_s", value_s)
    figure("mb_per_s", size_bytes / 1e6 / median_s["first"])
    figure("backup_relative_to_cp_and_sha256sum", median_s["first"] / reference_s)
    figure("restore_relative_to_cp_and_sha256sum", median_s["restore"] / reference_s)
    figure("incremental_share_of_time", median_s["again"] / median_s["first"])
    rlcar(site, "backup", str(root / "backup"))
    (site / "runs" / "run" / "new.bin").write_bytes(os.urandom(LARGE_MB << 20))
    said = rlcar(site, "backup", str(root / "backup"))
    uploaded = int(said.partition("figure uploaded_bytes=")[2].partition("\n")[0])
    figure("incremental_share_of_bytes", uploaded / (size_bytes + (LARGE_MB << 20)))


def write_files(site: Path, size_mb: int) -> None:
    """Writes random files: a few large ones, and many small ones."""
    run_folder = site / "runs" / "run"
    run_folder.mkdir(parents=True)
    for number in range(size_mb // LARGE_MB):
        (run_folder / f"{number}.bin").write_bytes(os.urandom(LARGE_MB << 20))
    rng = random.Random(0)
    (site / "data").mkdir()
    for number in range(SMALL_FILES):
        (site / "data" / f"{number}.bin").write_bytes(rng.randbytes(SMALL_BYTES))


def actions(site: Path) -> bytes:
    """Returns the actions of the champion for fixed observations."""
    policy = load_policy(Registry(site / "models"))
    observations = np.random.default_rng(7).random((64, policy.observation_size), np.float32)
    state, is_first, parts = policy.initial_state(64), np.ones(64, bool), []
    for _ in range(10):
        action, state = policy.act(state, observations, is_first)
        parts.append(np.asarray(action).tobytes())
        is_first = np.zeros(64, bool)
    return b"".join(parts)


def newest_state(site: Path) -> bytes:
    """Returns the state of the newest checkpoint."""
    newest = checkpoint.latest(site / "runs" / "first" / "checkpoints")
    assert newest is not None
    return (newest.path / "state.safetensors").read_bytes()


def digests(site: Path, *parts: str) -> dict[str, str]:
    """Returns the SHA-256 of every file of some folders."""
    paths = [path for part in parts for path in (site / part).rglob("*") if path.is_file()]
    return {
        str(path.relative_to(site)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths
    }


def rlcar(folder: Path, *words: str) -> str:
    return run([*RLCAR, *words], folder)


def run(command: list[str], folder: Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr[-2000:]}")
    return done.stdout


def timed(act: Callable[[], object]) -> float:
    start_s = time.monotonic()
    act()
    return time.monotonic() - start_s


def figure(name: str, value: float) -> None:
    print(f"figure {name}={value:.4g}" if isinstance(value, float) else f"figure {name}={value}")


if __name__ == "__main__":
    main()
