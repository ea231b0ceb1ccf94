"""Runs a pipeline: once, or again and again; a run that was interrupted goes on."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from cluster.pipeline import journal
from cluster.pipeline.context import Context, Done, Say, Stage
from cluster.pipeline.delivering import refuse_running_rollout
from cluster.pipeline.journal import Entry, Outcome, Run
from cluster.pipeline.recordings import find_new
from cluster.pipeline.report import report_path, write_report
from cluster.pipeline.retention import delete_unneeded
from cluster.pipeline.settings import PipelineSettings
from cluster.pipeline.stages import STAGES
from rlcar.errors import UserError
from rlcar.registry import Registry
from rlcar.system import lease, process_state
from serve.delivery.operator import Operator

Execute = Callable[[Context, Stage], None]  # returns when the entry of the stage is written

# Exit codes of the command, for cron and for services.
PROMOTED_OR_NOTHING, STOPPED, ROLLED_BACK = 0, 3, 4
_CODES: dict[Outcome, int] = {
    "promoted": PROMOTED_OR_NOTHING,
    "shadowed": PROMOTED_OR_NOTHING,
    "abandoned": PROMOTED_OR_NOTHING,
    "rolled back": ROLLED_BACK,
}


class Ending(NamedTuple):
    """How a call has ended."""

    sentence: str
    outcome: Outcome | None = None  # None: there was nothing to do
    run: Run | None = None

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        return PROMOTED_OR_NOTHING if self.outcome is None else _CODES.get(self.outcome, STOPPED)


def run_here(context: Context, stage: Stage) -> None:
    """Runs a stage in this process, and writes its entry."""
    values = context.run.values()
    inputs = {name: values[name] for name in stage.inputs}
    began_s = time.time()
    done: Done = stage.work(context, inputs)
    context.check()
    context.run.write(Entry(stage.name, began_s, time.time(), inputs, *done))


def run_once(
    settings: PipelineSettings, registry: Registry, say: Say, execute: Execute = run_here
) -> Ending:
    """Continues the open run, or begins one if there are enough new episodes.

    Returns when it has ended. Raises UserError if it cannot go on, and StoppedError or
    KeyboardInterrupt after Ctrl-C; the next call continues it in each case. A run that has ended
    without a report, because its process was killed, gets one, and that is all.
    """
    folder = Path(settings.folder)
    with _alone(folder, settings.name) as held:
        if isinstance(held, str):
            return Ending(held)
        earlier = journal.runs(folder)
        run = earlier[-1] if earlier else None
        if run is not None and run.outcome is not None:
            if not report_path(run).exists():
                return _end(settings, run)
            run = None
        if run is None:
            _refuse_second_rollout(settings, registry)
            found = find_new(Path(settings.collect.recordings), journal.used_spans(earlier))
            wanted = settings.collect
            if (
                found.episodes < wanted.minimum_episodes
                or found.transitions < wanted.minimum_transitions
            ):
                return Ending(
                    f"{settings.name}: not enough new data: {found.episodes:,} of "
                    f"{wanted.minimum_episodes:,} episodes, {found.transitions:,} of "
                    f"{wanted.minimum_transitions:,} transitions"
                )
            run = journal.begin(folder, settings.tree(), found.spans)
        else:
            _require_same_settings(settings, run)
        return _finish(Context(settings, registry, run, say, held.check), execute)


def run_stage(
    settings: PipelineSettings, registry: Registry, say: Say, name: str, number: int
) -> str:
    """Runs one stage of the open run for a process that waits for it; returns a sentence.

    Raises UserError unless the open run has this number and settings, and the stage is its next.
    """
    found = journal.runs(Path(settings.folder))
    run = found[-1] if found and found[-1].outcome is None else None
    done = {} if run is None else {entry.stage: entry for entry in run.entries()}
    following = next((stage for stage in STAGES if stage.name not in done), None)
    if run is None or run.number != number or following is None or following.name != name:
        raise UserError(
            f"the stage {name} of run {number} of {settings.name} is not the next one of an open "
            "run"
        )
    _require_same_settings(settings, run)
    run_here(Context(settings, registry, run, say), following)
    return f"{name}: {_entry_of(run, name).sentence}"


def abandon(settings: PipelineSettings) -> str:
    """Ends the open run; its episodes are new again for the next one. Returns a sentence.

    Raises UserError while the rollout of the run goes on, which nobody would follow then.
    """
    folder = Path(settings.folder)
    with _alone(folder, settings.name) as held:
        if isinstance(held, str):
            raise UserError(f"{held}: stop it first")
        earlier = journal.runs(folder)
        if not earlier or earlier[-1].outcome is not None:
            raise UserError(f"{settings.name} has no open run to abandon")
        run = earlier[-1]
        if "candidate" in run.values():
            keys = {"name", "alias", "registry"} & run.settings.keys()
            began = settings.model_copy(update={key: run.settings[key] for key in keys})
            context = Context(began, Registry(began.registry), run, lambda text: None)
            refuse_running_rollout(context)
        now_s = time.time()
        sentence = f"run {run.number} of {settings.name} is abandoned"
        run.write(Entry("abandon", now_s, now_s, {}, {}, sentence, "abandoned"))
        _end(settings, run)
        return sentence


def watch(once: Callable[[], Ending], interval_s: float, say: Say) -> None:
    """Calls `once` at this interval, without an end; after a mistake or a full disk too.

    The interval is from beginning to beginning; a run that takes longer is followed by the next.
    """
    while True:
        began_s = time.monotonic()
        try:
            say(once().sentence)
        except (UserError, OSError) as error:  # OSError: the disk is full, for example
            say(f"error: {error}")
        time.sleep(max(0.0, interval_s - (time.monotonic() - began_s)))


def _finish(context: Context, execute: Execute) -> Ending:
    """Runs the stages that have no entry yet."""
    run, name = context.run, context.name
    done = {entry.stage: entry for entry in run.entries()}
    if done:
        context.say(f"{name}: goes on after {', '.join(done)}")
    for stage in STAGES:
        if stage.name in done:
            continue
        context.check()
        context.say(f"{name}: {stage.name} begins")
        try:
            execute(context, stage)
        except UserError as error:
            context.check()  # a process that has lost the pipeline says that instead
            raise UserError(
                f"{stage.name} of {name}: {error}; repeat the command to try it again, or end the "
                "run with --abandon"
            ) from error
        entry = _entry_of(run, stage.name)
        seconds = entry.ended_s - entry.began_s
        context.say(f"{name}: {stage.name}: {entry.sentence} ({seconds:.1f} s)")
        if run.outcome is not None:
            break
    return _end(context.settings, run)


def _entry_of(run: Run, stage: str) -> Entry:
    return next(entry for entry in run.entries() if entry.stage == stage)


def _end(settings: PipelineSettings, run: Run) -> Ending:
    """Deletes what no later run needs, and writes the report of a run that has ended.

    Both may be repeated.
    """
    ending = run.ending
    assert ending is not None
    delete_unneeded(Path(settings.folder), settings.collect.history)
    path = write_report(run, settings.name)
    name = f"{settings.name}-{run.number:04d}"
    sentence = f"{name}: {ending.outcome}: {ending.sentence}; report: {path}"
    return Ending(sentence, ending.outcome, run)


@contextlib.contextmanager
def _alone(folder: Path, name: str) -> Iterator[lease.Lease | str]:
    """Holds the pipeline for this process; yields a sentence instead if another one does."""
    with contextlib.ExitStack() as stack:
        held: lease.Lease | str
        try:
            held = stack.enter_context(lease.hold(folder))
        except lease.HeldError:
            info = process_state.read(folder)
            held = f"{name} is run already by process {info.get('pid')} of {info.get('host')}"
        yield held


def _require_same_settings(settings: PipelineSettings, run: Run) -> None:
    before, now = run.settings, settings.tree()
    differing = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    if differing:
        raise UserError(
            f"run {run.number} of {settings.name} began with other settings "
            f"({', '.join(differing)}): restore them until it has ended, or end it with --abandon"
        )


def _refuse_second_rollout(settings: PipelineSettings, registry: Registry) -> None:
    registry.resolve(settings.alias)  # raises if there is nothing to compare with
    state = Operator(registry, settings.alias, settings.name).read().state
    if state is not None and state.is_running:
        raise UserError(
            f"rollout {state.rollout} of version {state.candidate} is still {state.phase}: wait "
            "for its end, or abort it with rlcar rollout abort"
        )
