"""Profiles a training: a trace for Perfetto or TensorBoard, and a table of the total times."""

import collections
import contextlib
import gzip
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from rlcar.agents import algorithm_of, make_agent
from rlcar.config import Config
from rlcar.errors import UserError
from rlcar.evaluation.environment import make_evaluation, make_rollout, spec_of
from rlcar.system.console import make_console
from rlcar.system.durable import explaining_write_errors, replacing
from rlcar.system.tables import make_table
from rlcar.training.trainer import Trainer

_TOP_OPERATIONS = 12
_Traced = tuple[Path, float, list[dict[str, Any]]]  # the trace, wall time, XLA events


class Profile(NamedTuple):
    """Measurements after the compilation of all programs."""

    trace: Path  # perfetto_trace.json.gz
    wall_s: float
    env_steps: int
    train_steps: int
    compile_s: float  # time of the first pass, which compiles, minus that of a later one
    stages_s: dict[str, float]
    operations: list[tuple[str, str, float, int]]  # program, operation, seconds, executions
    kernels: dict[str, int]  # operations executed, by program


def profile_train(config: Config, out: Path, blocks: int) -> Profile:
    """Runs the one-process loop for `blocks` blocks under the tracer, after a warm-up."""
    if config.training.blocks_per_call > 1:
        raise UserError(
            f"training.blocks_per_call = {config.training.blocks_per_call} compiles all "
            "stages into one program, which cannot be split: profile with "
            "--set training.blocks_per_call=1"
        )
    starts_after = 0 if algorithm_of(config).is_on_policy else config.replay.min_env_steps
    if starts_after > config.training.env_steps:
        raise UserError(
            f"replay.min_env_steps = {config.replay.min_env_steps} is more than "
            f"training.env_steps = {config.training.env_steps}: no train step would be profiled. "
            "Lower the first or raise the second"
        )
    spec = spec_of(config)
    agent = make_agent(config, spec)
    trainer, clock = Trainer(config, spec, agent), _Clock()
    evaluate = make_evaluation(config, agent.policy)

    def block() -> None:
        with clock("weights to the host"):
            weights = trainer.weights()
        with clock("drive"):
            trajectory, _ = rollout.collect(weights)
        with clock("insert"):
            trainer.insert(trajectory)
        with clock("train"):
            for _ in range(trainer.calls_due()):
                trainer.train()

    def look() -> None:
        with clock("evaluate (once)"):
            evaluate(trainer.weights().params)

    def work() -> None:
        for _ in range(blocks):
            block()
        look()

    with contextlib.closing(make_rollout(config, agent.policy)) as rollout:
        started = time.perf_counter()
        while not trainer.train_steps:
            block()
        look()
        first_s = time.perf_counter() - started
        before = trainer.env_steps, trainer.train_steps
        traced = _traced(out, clock, work)
    env_steps, train_steps = trainer.env_steps - before[0], trainer.train_steps - before[1]
    return _profile(clock, traced, env_steps, train_steps, first_s)


def profile_sim(config: Config, out: Path, blocks: int) -> Profile:
    """Drives `blocks` blocks with the untrained policy under the tracer, after a warm-up."""
    spec = spec_of(config)
    agent = make_agent(config, spec)
    weights = Trainer(config, spec, agent).weights()
    clock = _Clock()

    def block() -> None:
        with clock("drive"):
            rollout.collect(weights)

    def work() -> None:
        for _ in range(blocks):
            block()

    with contextlib.closing(make_rollout(config, agent.policy)) as rollout:
        started = time.perf_counter()
        block()
        first_s = time.perf_counter() - started
        traced = _traced(out, clock, work)
    env_steps = blocks * config.training.block_length * config.training.cars
    return _profile(clock, traced, env_steps, 0, first_s)


def print_profile(profile: Profile) -> None:
    """Prints the stages, the operations that took longest, and figures."""
    console = make_console()
    numbers = ("ms", "share", "executions")
    title = f"{profile.wall_s:.2f} s of wall time"
    stages = make_table("stage", "ms", "share", right=numbers, title=title)
    for name, seconds in sorted(profile.stages_s.items(), key=lambda item: -item[1]):
        stages.add_row(name, f"{1e3 * seconds:.1f}", f"{100 * seconds / profile.wall_s:.1f} %")
    console.print(stages)
    title = "operations that took longest (some may run in parallel)"
    table = make_table("program", "operation", "ms", "executions", right=numbers, title=title)
    for program, operation, seconds, count in profile.operations[:_TOP_OPERATIONS]:
        table.add_row(program, operation, f"{1e3 * seconds:.1f}", f"{count:,}")
    console.print(table)
    figures = {
        "env_steps_per_s": profile.env_steps / profile.wall_s,
        "train_steps_per_s": profile.train_steps / profile.wall_s,
        "compile_s": profile.compile_s,
    }
    if profile.train_steps:
        kernels = profile.kernels.get("jit_update", 0) / profile.train_steps
        figures["operations_per_train_step"] = kernels
    for name, value in figures.items():
        console.print(f"figure {name}={value:.6g}", highlight=False)
    console.print(f"trace: {profile.trace}", highlight=False, soft_wrap=True)
    console.print("open it on https://ui.perfetto.dev, or the folder in TensorBoard")


class _Clock:
    """Sums wall time by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = collections.defaultdict(float)

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        with jax.profiler.TraceAnnotation(name):
            yield
        self.seconds[name] += time.perf_counter() - started


def _traced(out: Path, clock: _Clock, work: Callable[[], None]) -> _Traced:
    """Runs `work` under the tracer; returns the trace, the wall time and the XLA events."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # its million events would hide the others
    clock.seconds.clear()
    with explaining_write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        with jax.profiler.trace(str(out), profiler_options=options):
            started = time.perf_counter()
            work()
            wall_s = time.perf_counter() - started
        trace, text = _for_perfetto(out)
    events = json.loads(text)["traceEvents"]
    operations = [event for event in events if "hlo_op" in event.get("args", {})]
    return trace, wall_s, operations


def _for_perfetto(out: Path) -> tuple[Path, bytes]:
    """Converts the newest trace below `out` for Perfetto; returns its path and its text.

    `jax.profiler.trace` can do so too, but takes half a minute for a million events.
    """
    written = max(out.glob("plugins/profile/*/*.trace.json.gz"), key=lambda p: p.stat().st_mtime)
    folder, text = written.parent, gzip.decompress(written.read_bytes())
    # Perfetto does not accept the field `metadata`, which JAX removes as well.
    text = re.sub(rb'"metadata":\{[^{}]*\},', b"", text, count=1)
    trace = folder / "perfetto_trace.json.gz"
    with replacing(trace) as temporary:
        temporary.write_bytes(gzip.compress(text, compresslevel=1))
    return trace, text


def _profile(
    clock: _Clock, traced: _Traced, env_steps: int, train_steps: int, first_s: float
) -> Profile:
    trace, wall_s, events = traced
    seconds: dict[tuple[str, str], float] = collections.defaultdict(float)
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    kernels: collections.Counter[str] = collections.Counter()
    for event in events:
        program, operation = event["args"].get("hlo_module", "?"), event["name"]
        if operation.startswith(("while", "call", "conditional")):
            continue  # it contains operations that are counted themselves
        seconds[program, operation] += event["dur"] / 1e6
        counts[program, operation] += 1
        kernels[program] += 1
    return Profile(
        trace=trace,
        wall_s=wall_s,
        env_steps=env_steps,
        train_steps=train_steps,
        compile_s=max(0.0, first_s - wall_s),
        stages_s=dict(clock.seconds),
        operations=[
            (*key, seconds[key], counts[key])
            for key in sorted(seconds, key=lambda key: -seconds[key])
        ],
        kernels=dict(kernels),
    )
