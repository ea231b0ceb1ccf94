"""A run's report: the figures of its policy and, once, of its training."""

import json
import shutil

import pytest

from rlcar.errors import CheckpointError, ConfigError, UserError
from rlcar.evaluation import laps as evaluate
from rlcar.evaluation.drivers import DRIVERS, REFERENCE
from rlcar.evaluation.run_report import FIGURES, evaluate_run
from rlcar.runs.run import Run
from rlcar.storage import checkpoint
from tests.support.tiny_run import compiled_once, make_tiny_config, trained


@pytest.fixture(autouse=True)
def _compiled_once():
    with compiled_once():
        yield


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A copy of the trained run with the report that training ends with."""
    source, outcome = trained()
    folder = shutil.copytree(source, tmp_path_factory.mktemp("runs") / "tiny")
    with compiled_once():
        evaluate_run(folder, "test", outcome.summary)
    return folder


def read_report(folder):
    return json.loads((folder / "report.json").read_text())


def test_the_report_and_the_printed_figures_say_the_same(run_folder, capsys):
    """Without figures of the training, the report keeps those of the report before."""
    _, outcome = trained()
    evaluate_run(run_folder, "test")
    report = read_report(run_folder)
    printed = dict(
        line.removeprefix("figure ").split("=")
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("figure ")
    )
    assert tuple(printed) == FIGURES
    for name, text in printed.items():
        expected = "none" if report[name] is None else f"{report[name]:.6g}"
        assert text == expected, name
    assert (report["track_set"], report["tracks"]) == ("test", 64)
    assert {name: report[name] for name in FIGURES[2:]} == outcome.summary
    assert report["env_steps"] == 768
    assert set(report["drivers"]) == {"nano", *DRIVERS, REFERENCE}
    assert {path.name for path in run_folder.iterdir()} >= {
        "laps.png",
        "best.png",
        "learning_curve.png",
    }


@pytest.mark.long  # other tracks are another jit of the policy and of those it is compared with
def test_another_track_set_keeps_what_training_said_of_itself(run_folder):
    _, outcome = trained()
    evaluate_run(run_folder, "validation")
    report = read_report(run_folder)
    assert (report["track_set"], report["tracks"]) == ("validation", 64)
    assert {name: report[name] for name in FIGURES[2:]} == outcome.summary


def test_a_run_means_its_best_policy_and_a_checkpoint_itself(run_folder):
    reports, compiled = [], []
    for path, step in (
        (run_folder, 512),
        (run_folder / "checkpoints" / "step-000000768", 768),
        (run_folder / "best" / "step-000000512", 512),
    ):
        evaluate_run(path, "test")
        report = read_report(run_folder)
        assert report["checkpoint"] == f"step-{step:09d}"
        assert report["checkpoint_env_steps"] == step
        report["provenance"].pop("created")
        reports.append(report)
        compiled.append(evaluate._cached_evaluator.cache_info().misses)
    assert reports[0] == reports[2]  # the same policy, evaluated twice
    # The policy's is another object each time; the four that it is compared with are not.
    assert compiled[2] <= compiled[0] + 2


def test_a_run_that_ended_before_its_first_evaluation_means_its_newest_checkpoint(
    run_folder, tmp_path
):
    folder = shutil.copytree(run_folder, tmp_path / "short")
    shutil.rmtree(folder / "best")
    evaluate_run(folder, "test")
    assert read_report(folder)["checkpoint_env_steps"] == 768


def test_what_is_no_run_no_track_set_or_holds_no_checkpoint_is_refused(run_folder, tmp_path):
    with pytest.raises(UserError, match="is not a run or a checkpoint of one"):
        evaluate_run(tmp_path, "test")
    with pytest.raises(ConfigError, match="unknown track set 'tset'; did you mean 'test'"):
        evaluate_run(run_folder, "tset")
    with Run(tmp_path / "empty", make_tiny_config()):
        pass
    with pytest.raises(CheckpointError, match="holds no complete checkpoint yet"):
        evaluate_run(tmp_path / "empty", "test")
    with pytest.raises(CheckpointError, match="is not a complete save: there is no such folder"):
        evaluate_run(run_folder / "checkpoints" / "step-000000001", "test")


def test_a_refused_evaluation_leaves_the_report_as_it_was(run_folder):
    before = (run_folder / "report.json").read_bytes()
    (best,) = checkpoint.saves(run_folder / "best")
    state = best.path / "state.safetensors"
    whole = state.read_bytes()
    state.write_bytes(whole[:-1])
    try:
        with pytest.raises(CheckpointError, match=r"damaged \(state\.safetensors: checksum"):
            evaluate_run(run_folder, "test")
    finally:
        state.write_bytes(whole)
    assert (run_folder / "report.json").read_bytes() == before
