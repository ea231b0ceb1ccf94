"""A curriculum from its first stage to its end, with real trainings of a tiny environment."""

import json
import os
import shutil
import signal
from types import SimpleNamespace

import numpy as np
import pytest

from rlcar.errors import CheckpointError, UserError
from rlcar.runs import stage_note
from rlcar.runs.completion import completion_of
from rlcar.runs.metrics_file import read_metrics
from rlcar.runs.monitor import RunReader
from rlcar.storage import checkpoint
from rlcar.training.curriculum import boundary, carried
from rlcar.training.curriculum.machine import Entered, Evaluated, Phase, Rechecked, Trained
from rlcar.training.curriculum.record import Record, begin_record, open_record
from rlcar.training.curriculum.runner import CurriculumRun
from rlcar.training.loop import train
from tests.support.tiny_curriculum import curriculum, stage
from tests.support.tiny_run import compiled_once

THREE = (
    stage("near", mean_reward=2.0, min_episodes=50),
    stage("wide", mean_reward=2.0, set={"environment.settings.farthest": 1.1}),
    stage("impossible", mean_reward=100.0, max_env_steps=512, attempts=2),
)


def train_here(config, folder, resume, on_evaluated):
    return train(config, folder, resume, on_evaluated)


def run_of(folder, made):
    return CurriculumRun(begin_record(folder, made), train_here)


@pytest.fixture(scope="module", autouse=True)
def _compiled_once():
    with compiled_once():
        yield


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """A curriculum whose last stage cannot be passed, after one regression."""
    run = run_of(
        folder_of(tmp_path_factory.mktemp("runs") / "tiny"), curriculum(*THREE, max_regressions=1)
    )
    assert run.run()
    return run


def _events(record, kind):
    return [entry for entry in record.entries if isinstance(entry.event, kind)]


def test_stages_are_passed_in_order_and_a_failure_regresses_before_it_ends(failed):
    state = failed.record.state
    assert (state.phase, state.stage, state.regressions) == (Phase.FAIL, 2, 1)
    passed = [e.before.stage for e in _events(failed.record, Evaluated) if e.event.passed]
    assert passed == [0, 1, 1]  # the second again after the regression
    assert state.runs == (1, 2, 4)


def test_an_attempt_ends_as_soon_as_its_stage_is_passed_and_has_its_least_episodes(failed):
    first = failed.record.details_of_run((0, 1), Trained)
    assert first["look"]["passed"]
    assert first["env_steps"] == 512  # of 1,024; the first evaluation after 50 episodes
    assert failed.record.details_of_run((2, 1), Trained)["env_steps"] == 512  # all of them


def test_each_attempt_is_an_ordinary_run_that_continues_the_best_one_before(failed):
    from rlcar.config import load_config

    starts = []
    for run in ((0, 1), (1, 1), (2, 1), (2, 2), (1, 2), (2, 3), (2, 4)):
        folder = failed.run_folder(run)
        start = load_config(folder / "config.json").training.start_from
        starts.append(start.rpartition("/checkpoints")[0].rpartition("/")[2])
        assert read_metrics(folder / "metrics.jsonl")
    assert starts[:3] == ["", "tiny-s1-a1", "tiny-s2-a1"]
    assert starts[3] == "tiny-s3-a1"
    assert starts[4].startswith("tiny-s3-a")  # the learner goes on in the easier stage
    assert starts[5] == "tiny-s2-a2"


def test_statistics_travel_with_the_weights_and_go_on_growing(failed):
    agent = failed._agent(failed.record.curriculum.config(0, 1))
    counts, before = [], 0
    for run in ((0, 1), (1, 1), (2, 1)):
        save = checkpoint.latest(failed.run_folder(run) / "checkpoints")
        before += save.env_steps
        found = carried.load_statistics(agent.learner, save)
        counts.append(
            (round(found["observation"].observations), round(found["return"].observations))
        )
        assert counts[-1] == (before, before)
    entered = failed.record.details_of_run((1, 1), Entered)
    trained = failed.record.details_of_run((0, 1), Trained)
    assert entered["statistics"] == trained["statistics"]
    assert entered["distance"]["median_nats"] < 1.0


def test_the_note_of_a_run_says_which_attempt_it_is(failed):
    note = stage_note.read(failed.run_folder((2, 2)))
    assert note.sentence() == (
        "stage 3 of 3 (impossible), attempt 2 of 2; passes at mean reward 100"
    )
    assert (note.curriculum, note.regressions) == ("tiny", 0)
    assert stage_note.read(failed.run_folder((2, 3))).regressions == 1


def test_earlier_stages_are_evaluated_again_on_advancing(failed):
    advances = _events(failed.record, Rechecked)
    assert [len(entry.details["earlier"]) for entry in advances] == [0, 1, 1]
    again = advances[1].details["earlier"][0]
    assert (again["stage"], again["is_forgotten"]) == ("near", False)


def test_the_report_names_every_attempt_and_has_a_picture(failed):
    report = json.loads((failed.folder / "report.json").read_text())
    assert (report["phase"], report["regressions"]) == ("fail", 1)
    assert [len(one["attempts"]) for one in report["stages"]] == [1, 2, 4]
    assert [one["passed"] is not None for one in report["stages"]] == [True, True, False]
    assert report["provenance"]["seed"] == 0
    assert (failed.folder / "curriculum.png").stat().st_size > 10_000


def _with_broken_learner(save, name, value):
    """Rewrites one array of a checkpoint's learner, as a faulty program would."""
    from rlcar.storage.arrays import read_arrays

    arrays = dict(read_arrays(save.path / "state.safetensors"))
    arrays[f"learner.{name}"] = np.full_like(arrays[f"learner.{name}"], value)
    tree: dict = {}
    for key, array in arrays.items():
        *parts, last = key.split(".")
        place = tree
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = array
    meta = {name: save.meta[name] for name in ("train_seconds", "train_steps", "seed", "metric")}
    extra = {"replay": checkpoint.load_extra(save, "replay")}
    text = (save.path / "config.json").read_text()
    checkpoint.save(
        save.path.parent, save.env_steps, tree, config_json=text, meta=meta, extra_files=extra
    )


@pytest.fixture(scope="module")
def between_stages(tmp_path_factory):
    """The folder that holds a curriculum of which only the first of two stages is over."""
    root = tmp_path_factory.mktemp("between")
    run = run_of(folder_of(root / "tiny"), curriculum(stage("a", max_env_steps=256), stage("b")))
    while run.record.state.stage == 0:
        run.step(stop=False)
    return root


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("moments.count", 1e-4, "they were lost or reset"),
        ("moments.variance", 1.0, "are not those with which the attempt before ended"),
        ("returns.variance", 0.0, "a variance is 0"),
        ("moments.mean", 1e6, "are not those with which the attempt before ended"),
        ("returns.count", 7.0, "they were lost or reset"),
    ],
)
def test_statistics_that_are_lost_between_two_stages_stop_the_curriculum(
    between_stages, tmp_path, name, value, sentence
):
    shutil.copytree(between_stages, tmp_path / "runs")
    run = CurriculumRun(open_record(tmp_path / "runs" / "tiny"), train_here)
    _with_broken_learner(checkpoint.latest(run.run_folder((0, 1)) / "checkpoints"), name, value)
    with pytest.raises(CheckpointError, match=f"cannot begin stage b: .*{sentence}"):
        run.run()
    assert run.record.state.phase is Phase.ENTER


def test_a_learner_that_loses_its_statistics_in_training_is_noticed(tmp_path, monkeypatch):
    run = run_of(
        folder_of(tmp_path / "tiny"), curriculum(stage("a", max_env_steps=512), stage("b"))
    )
    while run.record.state.stage == 0:
        run.step(stop=False)

    def forgets_them(config, folder, resume, on_evaluated):
        fresh = config.training.model_copy(update={"start_from": "", "env_steps": 256})
        return train(config.model_copy(update={"training": fresh}), folder, resume, on_evaluated)

    run._train_run = forgets_them
    with pytest.raises(CheckpointError, match="not more than the 512 that the attempt began with"):
        run.run()


def test_a_curriculum_that_is_asked_to_stop_saves_and_goes_on_in_the_same_attempt(tmp_path):
    made = curriculum(stage("a", min_episodes=10**6))
    folder = folder_of(tmp_path / "tiny")

    def train_and_ask(config, folder, resume, on_evaluated):
        def ask(figures):
            os.kill(os.getpid(), signal.SIGINT)
            return on_evaluated(figures)

        return train(config, folder, resume, ask)

    run = CurriculumRun(begin_record(folder, made), train_and_ask)
    assert not run.run()
    assert run.record.state.phase is Phase.TRAIN
    assert checkpoint.latest(run.run_folder((0, 1)) / "checkpoints").env_steps == 512
    resumed = CurriculumRun(open_record(folder), train_here)
    assert resumed.run()
    assert resumed.record.state.runs == (1,)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("is_written", [False, True], ids=["before", "after"])
def test_whenever_the_process_ends_at_an_event_the_right_attempt_goes_on(
    tmp_path, monkeypatch, is_written
):
    made = curriculum(stage("a", max_env_steps=256), stage("b", max_env_steps=256))
    folder = tmp_path / "tiny"
    begin_record(folder_of(folder), made)
    write = Record.write

    def write_and_end(record, event, details):
        if is_written:
            write(record, event, details)
        raise Killed

    events = 0
    while open_record(folder).state.phase is not Phase.DONE:
        before = open_record(folder).state
        with monkeypatch.context() as patch:
            patch.setattr(Record, "write", write_and_end)
            with pytest.raises(Killed):
                CurriculumRun(open_record(folder), train_here).run()
        if not is_written:  # the action is repeated by a process that lives to record it
            assert open_record(folder).state == before
            CurriculumRun(open_record(folder), train_here).step(stop=False)
        events += 1
    assert events == 8  # enter, train, evaluate and advance, twice
    assert open_record(folder).state.runs == (1, 1)


def folder_of(path):
    path.mkdir(parents=True)
    return path


def test_an_environment_without_success_cannot_have_a_success_rate(tmp_path):
    asks = stage("a", success_rate=0.1, set={"environment.settings.tells_success": False})
    run = run_of(folder_of(tmp_path / "tiny"), curriculum(asks))
    with pytest.raises(UserError, match="stage 'a' has a success_rate, but its environment does"):
        run.run()


def test_a_folder_of_an_earlier_curriculum_is_not_taken_for_an_attempt(tmp_path):
    made = curriculum(stage("a", max_env_steps=256))
    assert run_of(folder_of(tmp_path / "tiny"), made).run()
    (tmp_path / "tiny").rename(tmp_path / "deleted")
    with pytest.raises(UserError, match="tiny-s1-a1 exists already and is not of this curriculum"):
        run_of(folder_of(tmp_path / "tiny"), made).run()


def test_an_attempt_that_has_driven_all_of_its_episodes_is_over(tmp_path):
    never = stage("a", mean_reward=100.0, attempts=1, set={"training.episodes": 40})
    run = run_of(folder_of(tmp_path / "tiny"), curriculum(never))
    assert run.run()
    assert run.record.state.phase is Phase.FAIL
    (evaluated,) = _events(run.record, Evaluated)
    assert evaluated.before.is_over
    assert run.record.details_of_run((0, 1), Trained)["env_steps"] < 1024


def test_a_run_that_its_stage_has_ended_early_counts_as_complete(failed):
    folder = failed.run_folder((0, 1))
    assert completion_of(folder).is_complete
    assert RunReader(folder).status().state == "finished"
    assert "; passed at mean reward 2" in stage_note.read(folder).sentence()
    assert not stage_note.read(failed.run_folder((2, 1))).is_passed


def test_first_observations_that_are_not_finite_are_one_sentence(
    between_stages, tmp_path, monkeypatch
):
    shutil.copytree(between_stages, tmp_path / "runs")
    run = CurriculumRun(open_record(tmp_path / "runs" / "tiny"), train_here)

    class Broken:
        def collect(self, weights):
            observation = np.full((4, 2, 3), np.nan, np.float32)
            return SimpleNamespace(observation=observation), None

        def close(self):
            pass

    monkeypatch.setattr(boundary, "make_rollout", lambda config, policy: Broken())
    with pytest.raises(UserError, match="among the first 8 of .*Reaching-v0.* is not finite"):
        run.run()
