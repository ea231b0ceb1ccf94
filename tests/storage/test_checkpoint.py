"""Saves: complete or absent, exact, and honest about what is wrong."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from rlcar.errors import CheckpointError, NonFiniteError
from rlcar.storage import checkpoint
from tests.support.small_disk import mounted_disk


class Moments(NamedTuple):
    mean: Any
    layers: list[Any]


def make_state(units: int = 3, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "params": {"world_model/~/gru": {"w": jnp.asarray(rng.normal(size=(2, units)), "float32")}},
        "optimizer": Moments(
            mean=rng.normal(size=units), layers=[np.arange(units, dtype=np.uint8), None]
        ),
        "half": jnp.array([1.5, -2.0], jnp.bfloat16),
        "key": jax.random.PRNGKey(7),
        "is_warm": np.array([True, False]),
        "empty": np.zeros((0, 4), np.float32),
        "train_steps": 12,
        "rate": 0.25,
    }


def write(folder: Path, env_steps: int, state: Any = None, **settings: Any) -> checkpoint.Save:
    return checkpoint.save(
        folder,
        env_steps,
        make_state() if state is None else state,
        config_json='{"seed": 1}\n',
        meta={"train_steps": 12, "metric": 0.5, "seed": 1},
        **settings,
    )


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def error_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except CheckpointError as error:
        return str(error)
    return ""


def test_a_loaded_state_equals_the_saved_one_in_value_dtype_kind_and_structure(tmp_path):
    state = make_state()
    write(tmp_path, 12_000, state)
    loaded = checkpoint.load(tmp_path / "step-000012000", jax.tree.map(lambda leaf: leaf, state))
    assert jax.tree.structure(loaded) == jax.tree.structure(state)
    for before, after in zip(jax.tree.leaves(state), jax.tree.leaves(loaded), strict=True):
        if isinstance(before, jax.Array):
            assert isinstance(after, jax.Array)
        else:
            assert type(after) is type(before)
        assert np.asarray(after).dtype == np.asarray(before).dtype
        np.testing.assert_array_equal(after, before)
        if isinstance(after, np.ndarray):
            assert after.flags.writeable


def test_abstract_shapes_are_enough_to_load(tmp_path):
    state = {"w": jnp.ones((2, 3)), "key": jax.random.PRNGKey(1)}
    one = write(tmp_path, 1, state)
    loaded = checkpoint.load(one, jax.eval_shape(lambda: state))
    np.testing.assert_array_equal(loaded["key"], state["key"])


def test_save_load_save_is_byte_equal_whatever_the_order_of_the_names(tmp_path):
    state = make_state()
    first = write(tmp_path / "a", 5, state)
    loaded = checkpoint.load(first, make_state(seed=9))
    second = write(tmp_path / "b", 5, dict(reversed(loaded.items())))
    one, two = (save.path / "state.safetensors" for save in (first, second))
    assert one.read_bytes() == two.read_bytes()


def test_an_extra_file_does_not_depend_on_the_order_of_its_arrays(tmp_path):
    arrays = {name: np.full(2, ord(name), np.int64) for name in "cab"}
    files = []
    for env_steps, extra in enumerate((arrays, dict(sorted(arrays.items())))):
        one = write(tmp_path, env_steps, extra_files={"replay": extra})
        files.append((one.path / "replay.safetensors").read_bytes())
    assert files[0] == files[1]


def test_every_file_is_on_the_disk_before_done_is_and_done_before_the_rename(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda file: events.append(os.fstat(file).st_ino) or fsync(file)
    )
    monkeypatch.setattr(os, "replace", lambda *paths: events.append("rename") or replace(*paths))
    one = write(tmp_path, 1, extra_files={"replay": {}})
    inode = {path.stat().st_ino: path.name for path in (*one.path.iterdir(), one.path, tmp_path)}
    order = [inode.get(event, event) for event in events]
    files = {"config.json", "state.safetensors", "replay.safetensors", "meta.json"}
    assert set(order[:4]) == files
    assert order[4:] == [one.path.name, "DONE", one.path.name, "rename", tmp_path.name]


def test_the_file_is_what_the_safetensors_library_reads(tmp_path):
    state = {"b": np.arange(3, dtype=np.uint8), "a": np.eye(2, dtype=np.float32).T, "n": 4}
    one = write(tmp_path, 1, state)
    read = safetensors.numpy.load_file(one.path / "state.safetensors")
    assert set(read) == {"a", "b", "n"}
    np.testing.assert_array_equal(read["a"], state["a"])
    np.testing.assert_array_equal(read["b"], state["b"])
    assert read["n"].shape == ()
    assert read["n"].dtype == np.int64


def test_a_transposed_array_is_stored_by_value_not_by_memory_order(tmp_path):
    array = np.arange(6, dtype=np.int32).reshape(2, 3).T
    one = write(tmp_path, 1, {"a": array})
    np.testing.assert_array_equal(checkpoint.load(one, {"a": array})["a"], array)


def test_meta_says_where_the_save_comes_from(tmp_path):
    one = write(tmp_path, 12_000, extra_files={"replay": {"reward": np.zeros(3, np.float32)}})
    meta = json.loads((one.path / "meta.json").read_text())
    assert meta == one.meta == checkpoint.latest(tmp_path).meta
    assert meta["format_version"] == checkpoint.FORMAT_VERSION
    assert (meta["env_steps"], meta["train_steps"]) == (12_000, 12)
    assert (meta["metric"], meta["seed"]) == (0.5, 1)
    assert set(meta["versions"]) == {"python", "jax", "haiku", "numpy", "rlcar"}
    assert set(meta["sha256"]) == {"state.safetensors", "replay.safetensors", "config.json"}
    arrays = meta["arrays"]["state.safetensors"]
    assert arrays["params.world_model/~/gru.w"] == {"shape": [2, 3], "dtype": "float32"}
    assert arrays["optimizer.layers.0"] == {"shape": [3], "dtype": "uint8"}
    assert (one.path / "config.json").read_text() == '{"seed": 1}\n'
    assert names(one.path) == sorted([*meta["sha256"], "meta.json", "DONE"])


def test_a_metric_that_is_not_a_number_becomes_null_in_meta(tmp_path):
    meta = {"metric": np.float32("nan"), "seed": np.int64(3)}
    one = checkpoint.save(tmp_path, 1, {"a": 1}, config_json="{}", meta=meta)
    assert (one.meta["metric"], one.meta["seed"]) == (None, 3)


def test_an_extra_file_comes_back_and_an_absent_one_is_refused(tmp_path):
    replay = {"reward": np.arange(4, dtype=np.float32), "rng": np.array([2**63], np.uint64)}
    one = write(tmp_path, 1, extra_files={"replay": replay})
    loaded = checkpoint.load_extra(one, "replay")
    assert set(loaded) == set(replay)
    for name, array in replay.items():
        np.testing.assert_array_equal(loaded[name], array, strict=True)
    with pytest.raises(CheckpointError, match=r"saved without other\.safetensors"):
        checkpoint.load_extra(one, "other")


@pytest.mark.parametrize("name", ["state", "../state", ""])
def test_an_extra_file_cannot_take_a_name_that_is_not_its_own(tmp_path, name):
    with pytest.raises(ValueError, match="cannot be called"):
        write(tmp_path, 1, extra_files={name: {}})
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"units": np.zeros(5, np.float32)}, r"units has shape \[3\], expected \[5\]"),
        ({"units": np.zeros(3, np.float64)}, r"units is float32, expected float64"),
        ({"more": np.zeros(3, np.float32)}, r"it has no array more"),
        ({"steps": 1.0}, r"steps is int64, expected float64"),
        ({"steps": None}, r"it has an array steps, which this architecture lacks"),
    ],
)
def test_another_architecture_is_refused_by_the_name_of_the_array(tmp_path, change, message):
    state = {"units": np.zeros(3, np.float32), "steps": 1}
    one = write(tmp_path, 1, state)
    expected = rf"trained with another architecture \(see .*config\.json\): {message}"
    with pytest.raises(CheckpointError, match=expected):
        checkpoint.load(one, state | change)


@pytest.mark.parametrize("file", ["state.safetensors", "config.json", "meta.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "empty"])
def test_a_damaged_save_names_the_newest_earlier_one_that_is_sound(tmp_path, file, damage):
    for env_steps in (1, 2, 3, 4):
        last = write(tmp_path, env_steps)
    flip_a_byte(tmp_path / "step-000000003/state.safetensors")
    path = last.path / file
    if damage == "flip":
        flip_a_byte(path)
    elif damage == "remove":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 5 if damage == "truncate" else 0])
    problem = "No such file" if damage == "remove" else "checksum differs"
    with pytest.raises(CheckpointError, match=rf"is damaged \({file}: {problem}") as raised:
        checkpoint.load(last, make_state())
    sound = tmp_path / "step-000000002"
    assert f"previous complete one is {sound}: resume with --resume {sound}" in str(raised.value)
    checkpoint.load(sound, make_state())


def test_a_damaged_replay_is_refused_but_its_state_still_loads(tmp_path):
    one = write(tmp_path, 1, extra_files={"replay": {"reward": np.zeros(9, np.float32)}})
    flip_a_byte(one.path / "replay.safetensors")
    with pytest.raises(CheckpointError, match=r"replay\.safetensors: checksum.*no earlier"):
        checkpoint.load_extra(one, "replay")
    checkpoint.load(one, make_state())


def test_another_format_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", 99)
    one = write(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format version 99; this rlcar reads 1"):
        checkpoint.load(one, make_state())


def test_a_torn_save_is_not_a_checkpoint(tmp_path):
    write(tmp_path, 1)
    torn = write(tmp_path, 2).path
    (torn / "DONE").unlink()
    assert [one.env_steps for one in checkpoint.saves(tmp_path)] == [1]
    with pytest.raises(CheckpointError, match=r"no DONE; the previous complete one is .*00001"):
        checkpoint.load(torn, make_state())
    with pytest.raises(CheckpointError, match="no such folder"):
        checkpoint.load(tmp_path / "step-000000077", make_state())


def test_a_folder_of_saves_stands_for_its_newest(tmp_path):
    write(tmp_path, 2)
    write(tmp_path, 1)
    assert checkpoint.open_save(tmp_path).env_steps == 2


def test_saves_are_listed_oldest_first_and_other_folders_ignored(tmp_path):
    for env_steps in (2_000_000_000, 30, 4):
        write(tmp_path, env_steps)
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "step-x").mkdir()
    assert [one.env_steps for one in checkpoint.saves(tmp_path)] == [4, 30, 2_000_000_000]
    assert checkpoint.latest(tmp_path).env_steps == 2_000_000_000
    assert checkpoint.latest(tmp_path / "absent") is None


def test_saving_again_at_the_same_env_steps_replaces_the_save(tmp_path):
    write(tmp_path, 1, {"a": 1})
    write(tmp_path, 1, {"a": 2})
    assert checkpoint.load(checkpoint.latest(tmp_path), {"a": 0}) == {"a": 2}
    assert names(tmp_path) == ["step-000000001"]


def test_a_save_killed_while_it_was_replaced_is_found_and_brought_back(tmp_path):
    one = write(tmp_path, 1, {"a": 1})
    one.path.rename(tmp_path / ".replaced-step-000000001")
    assert checkpoint.load(checkpoint.latest(tmp_path), {"a": 0}) == {"a": 1}
    write(tmp_path, 2)
    assert names(tmp_path) == ["step-000000001", "step-000000002"]


def test_keep_leaves_the_newest_and_those_that_they_need(tmp_path):
    for env_steps, needs in ((1, []), (2, []), (3, []), (4, ["step-000000002"])):
        meta = {"train_steps": 0, "needs": needs}
        checkpoint.save(tmp_path, env_steps, {"a": 1}, config_json="{}", meta=meta)
    checkpoint.keep(tmp_path, newest=1)
    assert names(tmp_path) == ["step-000000002", "step-000000004"]
    with pytest.raises(ValueError, match="keep at least 1"):
        checkpoint.keep(tmp_path, newest=0)


def test_keep_can_leave_the_newest_that_is_not_later_as_well(tmp_path):
    for env_steps in (1, 2, 4, 5):
        write(tmp_path, env_steps, {"a": 1})
    checkpoint.keep(tmp_path, newest=1, at_most_env_steps=3)
    assert names(tmp_path) == ["step-000000002", "step-000000005"]


def test_the_newest_sound_save_is_one_whose_needs_are_sound_too(tmp_path, caplog):
    for env_steps, needs in ((1, []), (2, []), (3, ["step-000000002"])):
        meta = {"train_steps": 0, "needs": needs}
        checkpoint.save(tmp_path, env_steps, {"a": 1}, config_json="{}", meta=meta)
    assert checkpoint.latest_sound(tmp_path).env_steps == 3
    flip_a_byte(tmp_path / "step-000000002" / "state.safetensors")
    assert checkpoint.latest_sound(tmp_path).env_steps == 1
    assert len(caplog.records) == 2
    assert f"skipping {tmp_path / 'step-000000003'}: it is damaged (step-000000002" in caplog.text


def test_rewind_forgets_the_future_of_the_save_that_is_resumed(tmp_path):
    written = [write(tmp_path, env_steps, {"a": 1}) for env_steps in (1, 2, 3)]
    checkpoint.rewind(tmp_path, written[0])
    assert names(tmp_path) == ["step-000000001"]


def test_provenance_names_this_commit_and_these_versions():
    found = checkpoint.provenance(seed=3)
    command = ["git", "rev-parse", "HEAD"]
    root = Path(checkpoint.__file__).parents[2]
    git = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    is_checkout = (root / ".git").exists()
    assert found["commit"] == (git.stdout.strip() if is_checkout and git.stdout else None)
    assert found["seed"] == 3
    assert found["versions"]["numpy"] == np.__version__
    assert found["created"].endswith("+00:00")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_state_that_is_not_finite_is_refused_by_name_and_leaves_nothing(tmp_path, bad, dtype):
    state = {"fine": 1.0, "params": {"w": jnp.array([1.0, bad], dtype)}}
    with pytest.raises(NonFiniteError, match=r"params\.w has 1 non-finite of 2"):
        write(tmp_path, 1, state)
    assert names(tmp_path) == []


@pytest.mark.parametrize("leaf", ["text", 1j, jax.random.key(0), np.array([None])])
def test_what_cannot_be_stored_exactly_is_refused_by_name(tmp_path, leaf):
    with pytest.raises(TypeError, match="cannot store 'a'"):
        write(tmp_path, 1, {"a": leaf})


def test_two_arrays_of_one_dotted_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"two arrays .* 'a\.b'"):
        write(tmp_path, 1, {"a": {"b": 1}, "a.b": 2})


KILLED = """
import os, pathlib, signal, sys
from rlcar.storage import checkpoint
rename = os.replace
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
os.replace = die
checkpoint.save(pathlib.Path(sys.argv[1]), 2, {"a": 2}, config_json="{}", meta={})
"""


def test_a_save_that_is_killed_leaves_what_the_next_one_cleans(tmp_path):
    write(tmp_path, 1, {"a": 1})
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert names(tmp_path) == [".saving-step-000000002", "step-000000001"]
    assert checkpoint.load(checkpoint.latest(tmp_path), {"a": 0}) == {"a": 1}
    write(tmp_path, 3, {"a": 3})
    assert names(tmp_path) == ["step-000000001", "step-000000003"]


def test_a_disk_that_refuses_leaves_the_earlier_saves_and_nothing_partial(tmp_path):
    good = write(tmp_path, 1, {"a": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    try:
        with pytest.raises(CheckpointError, match="cannot save .*File too large; the last") as hit:
            write(tmp_path, 2, {"a": np.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert f"the last good checkpoint {good.path} is intact" in str(hit.value)
    assert names(tmp_path) == ["step-000000001"]
    assert checkpoint.load(good, {"a": 0}) == {"a": 1}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB, for root only."""
    with mounted_disk(tmp_path / "disk", size_kb=64) as disk:
        yield disk


def test_a_full_disk_leaves_the_earlier_saves_and_nothing_partial(small_disk):
    good = write(small_disk, 1, {"a": 1})
    with pytest.raises(CheckpointError, match="No space left on device; the last good") as hit:
        write(small_disk, 2, {"a": np.zeros(100_000)})
    assert str(good.path) in str(hit.value)
    assert names(small_disk) == ["step-000000001"]
    assert checkpoint.load(good, {"a": 0}) == {"a": 1}


@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_a_full_disk_is_survived_at_every_call_that_can_meet_it(tmp_path, monkeypatch, call):
    genuine = getattr(os, call)
    good = write(tmp_path, 1, {"a": 1})
    failures = 0
    for fail_at in range(1, 20):
        calls = 0

        def refuse(*arguments, fail_at=fail_at, **settings):
            nonlocal calls
            calls += 1
            if calls == fail_at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return genuine(*arguments, **settings)

        # The first save of step 1 is replaced, so that each rename is met too.
        monkeypatch.setattr(os, call, refuse)
        said = error_of(lambda: write(tmp_path, 1, {"a": 1}))
        monkeypatch.undo()
        assert said == "" or "No space left on device; the last good checkpoint" in said
        failures += bool(said)
        # Only what could not be removed for the same reason may be left beside it.
        assert (
            {"step-000000001"}
            <= set(names(tmp_path))
            <= {
                "step-000000001",
                ".replaced-step-000000001",
            }
        )
        assert checkpoint.load(good.path, {"a": 0}) == {"a": 1}
        if calls < fail_at:
            break
    assert failures >= 2
