"""Every table of the command line: it fits into its terminal, and no name in it is cut."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from cluster.chaos.report import make_table as make_chaos_table
from cluster.doctor.machine import Finding
from cluster.jobs.monitor import NodeStatus
from cluster.sweeps.file import load_sweep
from cluster.sweeps.history import Score, TrialResult
from cluster.sweeps.results import print_results
from rlcar.cli import doctor, jobs, models, monitor, tokens
from rlcar.evaluation.table import print_table
from rlcar.registry import Registry
from rlcar.runs.monitor import Card, RunStatus
from rlcar.runs.stage_note import StageNote
from rlcar.training import profiler
from serve.client.closed_loop import print_drive
from serve.guard.tokens import TokenStore
from tests.serve.served import publish

# A letter that nothing else prints: all of a name is there if all of its letters are.
LETTER = "ж"
NAME = LETTER * 72


@pytest.fixture(params=[80, 160])
def screen(request, monkeypatch):
    """A console of 80 or 160 columns, to which every verb prints."""
    console = Console(file=io.StringIO(), width=request.param)
    for module in (doctor, jobs, models, profiler, tokens):
        monkeypatch.setattr(module, "make_console", lambda: console)
    return console


def printed(screen, names=1):
    """Returns what was printed, after a check that it fits and that so many names are whole."""
    text = screen.file.getvalue()
    assert max(map(len, text.splitlines())) <= screen.width
    assert "…" not in text
    assert text.count(LETTER) == names * len(NAME)
    return text


def test_the_report_of_an_evaluation(screen):
    score = {
        "lap_rate": 1.0,
        "lap_rate_interval": [0.95, 1.0],
        "lap_time_steps": 1000.0,
        "over_bound_pct": 298.1,
        "over_bound_pct_interval": [290.1, 298.1],
        "crash_rate": 1.0,
        "timeout_rate": 1.0,
        "progress": 1.0,
        "smoothness": 0.123,
    }
    drivers = {NAME: score, "full_throttle": score | {"lap_time_steps": None}}
    about = {"driver": NAME, "track_set": "test", "tracks": 64, "drivers": drivers}
    bounds = {"bound_steps": 250.0, "racing_line_estimate_steps": 290.0}
    print_table(about | bounds, screen)
    text = printed(screen)
    for whole in (
        "64 test tracks",
        "290.1–298.1",
        "1000.0",
        "[steps]",
        "lower bound",
        "full_throttle",
    ):
        assert whole in text
    assert ("298.1  290.1–298.1" in text) == (screen.width == 160)


def test_the_monitor(screen):
    figures = {name: 123_456.0 for name in RunStatus._fields if name not in _NO_NUMBERS}
    note = StageNote(NAME, 2, 5, NAME, 1, 5, 0, 0.5, 600.0)
    run = RunStatus(NAME, "running", error=NAME, stage="compiling", curriculum=note, **figures)
    card = Card(0, NAME, 0.9, 40_960.0, 143_771.0)
    node = NodeStatus(NAME, "alive", 0.5, 0.5, [card])
    screen.print(monitor.picture(monitor.Snapshot([run], cards=[card], nodes=[node])))
    printed(screen, names=7)


_NO_NUMBERS = ("name", "state", "error", "stage", "curriculum")


def test_the_versions_of_a_registry(screen, tmp_path):
    publish(tmp_path)
    registry = Registry(tmp_path)
    model = registry.open(1)
    lineage = model.version.metadata["lineage"] | {"run": NAME}
    metadata = model.version.metadata | {"lineage": lineage, "description": NAME}
    registry.promote(registry.add(model.arrays, metadata).number, "candidate")
    models.list_(str(tmp_path))
    text = printed(screen, names=2)
    assert model.version.created[:10] in text
    assert "dreamer" in text


def test_the_difference_of_two_versions(screen, tmp_path):
    publish(tmp_path)
    registry = Registry(tmp_path)
    model = registry.open(1)
    registry.add(model.arrays, model.version.metadata | {"description": NAME})
    models.diff("1", "2", str(tmp_path))
    assert "description" in printed(screen)


def test_tokens(screen, tmp_path):
    store = TokenStore(tmp_path / "tokens.json")
    store.create("a" * 40, ["read", "act", "drive", "admin"], 86_400.0)
    tokens.list_(tmp_path / "tokens.json")
    assert printed(screen, names=0).count("a") > 40


def test_findings_of_the_doctor(screen):
    doctor._print({"this machine": [Finding("storage", "problem", NAME, f"write to {NAME}")]})
    assert "storage" in printed(screen, names=2)


def test_jobs(screen):
    job = {"job": "rlcar-train-20261129-235959-1a2b", "state": "succeeded", "seconds": 1e5}
    jobs._print_jobs([job | {"started": "2026-11-29T23:59:59+00:00", "command": f"train {NAME}"}])
    printed(screen)


def test_where_the_time_of_a_training_goes(screen):
    operations = [("jit_update", NAME, 1.5, 123_456)]
    profile = profiler.Profile(
        wall_s=2.0,
        stages_s={NAME: 1.0},
        operations=operations,
        kernels={"jit_update": 7},
        env_steps=128,
        train_steps=2,
        compile_s=3.0,
        trace="profile",
    )
    profiler.print_profile(profile)
    assert "123,456" in printed(screen, names=2)


def test_a_drive_over_the_network(screen):
    figures = {"lap_rate": 1.0, "crash_rate": 1.0, "latency_p50_ms": 1234.56}
    figures |= {"latency_p99_ms": 1234.56, "lap_time_steps": 1000.0}
    counts = {"tracks": 64, "holds": 123_456, "fallbacks": 123_456, "model_version": 12_345}
    print_drive(figures | counts | {"track_set": NAME}, screen)
    assert "1234.56 ms" in printed(screen)


def test_the_results_of_a_sweep(screen):
    sweep = load_sweep(Path(__file__).parents[2] / "tune_configs" / "smoke.yaml")
    settings = dict.fromkeys(sweep.space, 0.000123456)
    score = Score(123_456.0, 123_456_789, settings)
    result = TrialResult(NAME, "unfinished", score, settings, 123_456_789, 1e5, 12, "none", [])
    print_results(sweep, [result], screen)
    assert "unfinished" in printed(screen)


def test_the_report_of_chaos(screen):
    sums = {"kills": 123, "recovery_median_s": 1234.5, "recovery_worst_s": 1234.5}
    by_kind = {kind: sums | {"env_steps_lost": 123_456} for kind in ("simulator", "driver")}
    report = {"kills": 246, "seconds": 36_000.0, "completed": True, "checkpoints_lost": 0}
    screen.print(make_chaos_table(report | {"by_kind": by_kind}))
    assert "123456" in printed(screen, names=0)
