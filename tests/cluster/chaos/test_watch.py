"""What the campaign reads off a run's files: rates, falls, checkpoints that are gone."""

import json

import numpy as np
import pytest

from cluster.chaos.watch import RunWatch, is_newest_save_sound
from rlcar.storage import checkpoint


def write_rows(folder, *env_steps, delivering=1):
    fleet = {"cluster/simulators": 2, "cluster/simulators_delivering": delivering}
    rows = [{"env_steps": count, **fleet} for count in env_steps]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def save(folder, env_steps):
    state = {"policy": {"w": np.zeros(2, np.float32)}}
    extra = {"replay": {"reward": np.zeros(4, np.float32)}}
    checkpoints = folder / "checkpoints"
    return checkpoint.save(
        checkpoints, env_steps, state, config_json="{}", meta={}, extra_files=extra
    )


def drive(watch, folder, *moments):
    """Lets the watch see each (second, env steps)."""
    for now_s, env_steps in moments:
        write_rows(folder, env_steps)
        watch.update(now_s)


def test_a_rate_is_that_of_the_window_alone(tmp_path):
    watch = RunWatch(tmp_path, window_s=2.0)
    drive(watch, tmp_path, (0.0, 100), (1.0, 200), (2.0, 400), (3.0, 400), (4.0, 800))
    assert watch.rate(0.0, 2.0) == pytest.approx(150)
    assert watch.rate(2.0, 3.5) == 0
    assert watch.rate(2.0, 4.0) == pytest.approx(200)
    assert watch.rate(-1.0, 2.0) is None


def test_full_rate_is_only_in_a_window_after_the_kill(tmp_path):
    watch = RunWatch(tmp_path, window_s=2.0)
    drive(watch, tmp_path, *((second, 100 * second) for second in range(6)))
    assert watch.add_undisturbed_window(5.0)
    assert watch.undisturbed_rate() == pytest.approx(100)
    assert not watch.is_full_rate(since_s=5.0, now_s=6.0)
    drive(watch, tmp_path, (6.0, 520), (7.0, 540), (8.0, 560))
    assert not watch.is_full_rate(since_s=5.0, now_s=8.0)
    drive(watch, tmp_path, (9.0, 660), (10.0, 760))
    assert watch.is_full_rate(since_s=5.0, now_s=10.0)


def test_a_training_that_goes_on_from_a_checkpoint_has_fallen_by_what_came_after_it(tmp_path):
    watch = RunWatch(tmp_path, window_s=1.0)
    drive(watch, tmp_path, (0.0, 1000), (1.0, 1500))
    write_rows(tmp_path, 1000, 1200)
    watch.update(2.0)
    watch.update(3.0)
    assert (watch.env_steps, watch.env_steps_lost, watch.progress_s) == (1200, 300, 2.0)
    assert watch.rate(0.0, 3.0) is None  # what came before the fall is another training


def test_rows_of_evaluations_and_torn_rows_are_passed_over(tmp_path):
    watch = RunWatch(tmp_path, window_s=1.0)
    write_rows(tmp_path, 256, 512, delivering=2)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"env_steps": 640, "evaluation/lap_rate": 0.5}\n{"env_steps": 768, "clus')
    watch.update(0.0)
    assert (watch.env_steps, watch.delivering, watch.do_all_deliver) == (512, 2, True)
    write_rows(tmp_path, 1024, delivering=1)
    watch.update(1.0)
    assert not watch.do_all_deliver


def test_a_checkpoint_is_lost_when_an_older_one_becomes_the_newest(tmp_path):
    watch = RunWatch(tmp_path, window_s=1.0)
    saves = [save(tmp_path, env_steps) for env_steps in (100, 200, 300)]
    watch.update(0.0)
    checkpoint.keep(tmp_path / "checkpoints", 2)  # for its age
    watch.update(1.0)
    assert watch.checkpoints_lost == 0
    checkpoint.rewind(tmp_path / "checkpoints", saves[1])
    watch.update(2.0)
    assert watch.checkpoints_lost == 1


def test_a_flipped_byte_makes_the_newest_save_unsound(tmp_path):
    assert is_newest_save_sound(tmp_path)
    save(tmp_path, 100)
    newest = save(tmp_path, 200)
    assert is_newest_save_sound(tmp_path)
    replay = newest.path / "replay.safetensors"
    data = bytearray(replay.read_bytes())
    data[-1] ^= 1
    replay.write_bytes(bytes(data))
    assert not is_newest_save_sound(tmp_path)
