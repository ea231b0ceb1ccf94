"""How long does a train step take on a GPU, and what do command buffers make of it?

    python benchmarks/gpu_update.py [--settings default loops] [--cases nano small] [--out FOLDER]

Such a train step is thousands of small kernels, and a launch costs the host more than most of them
the card. XLA can record launches into a command buffer (a CUDA graph); loops only where it is told
to. Each setting of XLA is a process of its own: all compile side by side, then take turns. The
yardsticks in the same run are no command buffers, and the plain version of `update_speed.py`.
"""

import argparse
import collections
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

WITH_LOOPS = (
    "--xla_gpu_enable_command_buffer=+WHILE,+CONDITIONAL,+DYNAMIC_SLICE_FUSION "
    "--xla_gpu_graph_min_graph_size=1"
)
SETTINGS = {
    "off": "--xla_gpu_enable_command_buffer=",
    "default": "",
    "loops": WITH_LOOPS,
    "unrolled": f"{WITH_LOOPS} --xla_gpu_command_buffer_unroll_loops=true",
}
# The preset and what differs from it: 16 windows of 64 steps, as the public code, or 64 of 16.
LONG = ["replay.batch_size=16", "replay.batch_length=64", "training.block_length=64"]
SHORT = ["replay.batch_size=64", "replay.batch_length=16"]
CASES = {
    "nano": ("nano", []),
    "nano_64x16": ("nano", SHORT),
    "size1m_16x64": ("small", LONG),
    "size1m_64x16": ("small", SHORT),
    "medium_16x64": ("medium", LONG),
    "medium_64x16": ("medium", SHORT),
}
ROUNDS = 12
COMPILING_S = 170.0


def work(setting: str, cases: list[str], turn: Path, out: Path) -> None:
    """Compiles every case, waits for its turn, times them, prints one JSON line for each."""
    import fcntl

    from update_speed import ours, plain

    from rlcar.config import make_config

    todo: list[tuple[str, Callable[[], int], int]] = []
    for case in cases:
        preset, overrides = CASES[case]
        config = make_config(preset, overrides=overrides)
        rows = config.replay.batch_size * config.replay.batch_length
        mixed = make_config(preset, overrides=[*overrides, "dreamer.precision=bfloat16"])
        todo.append((f"{case}_float32", ours(config), rows))
        todo.append((f"{case}_bfloat16", ours(mixed), rows))

    def compile_one(one: tuple[str, Callable[[], int], int]) -> None:
        started = time.perf_counter()
        one[1]()
        print(f"# {setting} {one[0]} compiled in {time.perf_counter() - started:.0f} s", flush=True)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(compile_one, todo))
    if setting == "default" and "size1m_16x64" in cases:
        config = make_config("small", overrides=LONG)
        todo.append(("size1m_16x64_plain", plain(config), 1024))
        todo[-1][1]()
    (turn.parent / f"ready-{setting}").touch()
    until = time.monotonic() + COMPILING_S
    others = int(os.environ["SETTINGS"])
    while len(list(turn.parent.glob("ready-*"))) < others and time.monotonic() < until:
        time.sleep(0.2)
    with turn.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name, run, rows in todo:
            took = []
            for _ in range(ROUNDS):
                started = time.perf_counter()
                updates = run()
                took.append(1e3 * (time.perf_counter() - started) / updates)
            ms = statistics.median(took)
            row = {"setting": setting, "case": name, "ms": ms, "best_ms": min(took)}
            print(json.dumps(row | {"transitions_per_s": 1e3 * rows / ms}), flush=True)
        if setting == "loops":
            for name, run, _ in todo:
                if name in ("nano_float32", "size1m_64x16_float32", "size1m_64x16_bfloat16"):
                    kernels(run, name, out)


def kernels(run: Callable[[], int], name: str, out: Path) -> None:
    """Writes which kernels a call spends its time in."""
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, create_perfetto_trace=True):
            updates = run()
        (path,) = Path(folder).rglob("perfetto_trace.json.gz")
        with gzip.open(path) as file:
            events = json.load(file)["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e.get("name") == "process_name"}
    spent: dict[str, list[float]] = collections.defaultdict(list)
    for event in events:
        if event.get("ph") == "X" and "GPU" in names.get(event["pid"], ""):
            spent[event["name"]].append(event["dur"])
    total_ms = sum(map(sum, spent.values())) / 1e3 / updates
    count = sum(map(len, spent.values())) / updates
    lines = [f"{name}: {total_ms:.2f} ms in {count:.0f} events an update"]
    for kernel, took in sorted(spent.items(), key=lambda item: -sum(item[1])):
        each = f"{sum(took) / updates / 1e3:8.3f} ms {len(took) / updates:7.1f} x"
        lines.append(f"{each} {statistics.median(took):8.2f} us  {kernel}")
    (out / f"kernels-{name}.txt").write_text("\n".join(lines[:200]) + "\n")
    print(f"# {lines[0]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        setting, turn = options.work
        work(setting, options.cases, Path(turn), options.out)
        return

    from header import print_header

    print_header("jax")
    card = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    print(card.stdout.strip() or sys.exit("nvidia-smi finds no card: this benchmark is about one"))
    with tempfile.TemporaryDirectory() as folder:
        turn, rows = Path(folder) / "turn", []
        command = [sys.executable, __file__, "--out", str(options.out), "--cases", *options.cases]
        started: dict[str, Any] = {
            setting: subprocess.Popen(
                [*command, "--work", setting, str(turn)],
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ
                | {
                    "XLA_FLAGS": SETTINGS[setting],
                    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
                    "SETTINGS": str(len(options.settings)),
                },
            )
            for setting in options.settings
        }
        for process in started.values():
            for line in process.stdout:
                print(line, end="", flush=True)
                if line.startswith("{"):
                    rows.append(json.loads(line))
            process.wait()
    for row in rows:
        print(f"figure {row['case']}_{row['setting']}_ms={row['ms']:.4g}")
        print(f"figure {row['case']}_{row['setting']}_per_s={row['transitions_per_s']:.4g}")


if __name__ == "__main__":
    main()
