"""Runs in storage, an S3 server and a folder: complete or absent, fetched by a fresh machine."""

import shutil

import numpy as np
import pytest

from rlcar.errors import StorageError
from rlcar.runs import stage_note
from rlcar.runs.metrics_file import read_metrics
from rlcar.runs.run import Run
from rlcar.storage import checkpoint
from rlcar.storage.mirror import Mirror
from rlcar.storage.runs import _NOTE, Storage, parse_storage
from rlcar.training.loop import train
from tests.support.object_store import make_bucket, object_store, requiring_signatures
from tests.support.tiny_run import compiled_once, make_tiny_config
from tests.support.waiting import wait_until

CONFIG = make_tiny_config()


@pytest.fixture(scope="module")
def s3_server():
    with object_store() as (_, address):
        yield address


@pytest.fixture
def bucket(s3_server, monkeypatch, request):
    """The address of an empty bucket."""
    name = f"bucket{abs(hash(request.node.name)) % 10**9}"
    return f"s3://{name}/runs?{make_bucket(s3_server, name, monkeypatch)}"


@pytest.fixture(params=["s3", "folder"])
def url(request, tmp_path):
    if request.param == "s3":
        return request.getfixturevalue("bucket")
    return f"file://{tmp_path / 'storage'}"


def save_at(folder, env_steps, needs=()):
    meta = {"train_seconds": 1.0, "train_steps": env_steps, "seed": 0, "needs": list(needs)}
    state = {"x": np.arange(env_steps, dtype=np.float32)}
    return checkpoint.save(folder, env_steps, state, config_json="{}", meta=meta)


def make_run(folder, *env_steps):
    with Run(folder, CONFIG) as run:
        for steps in env_steps:
            run.log(steps, steps)
            save_at(run.checkpoints, steps)
    return folder


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not {"tensorboard", "process.json"} & {*path.parts}
    }


def test_a_run_comes_back_on_a_fresh_machine_as_it_was(url, tmp_path):
    folder = make_run(tmp_path / "here" / "mine", 100, 200)
    save_at(folder / "best", 150)
    Storage(url).check()
    Storage(url).push(folder)
    save = Storage(url).fetch_newer(tmp_path / "there", "auto", None)
    assert save.path == tmp_path / "there" / "mine" / "checkpoints" / "step-000000200"
    before, after = content(folder), content(tmp_path / "there" / "mine")
    older = {name for name in before if "step-000000100" in name}
    assert after == {name: data for name, data in before.items() if name not in older}


def test_what_the_run_has_dropped_is_dropped_from_the_storage_too(url, tmp_path):
    folder = make_run(tmp_path / "mine", 100, 200, 300)
    storage = Storage(url)
    storage.push(folder)
    checkpoint.keep(folder / "checkpoints", 1)
    storage.push(folder)
    assert set(storage._saves(f"{storage._base}/mine/checkpoints")) == {"step-000000300"}


def test_a_save_that_was_replaced_is_sent_again(url, tmp_path):
    folder = make_run(tmp_path / "here" / "mine", 100)
    Storage(url).push(folder)
    meta = {"train_seconds": 2.0, "train_steps": 7, "seed": 0}
    new = checkpoint.save(
        folder / "checkpoints", 100, {"x": np.ones(3)}, config_json="{}", meta=meta
    )
    Storage(url).push(folder)
    save = Storage(url).fetch("mine", tmp_path / "there")
    assert save.meta["train_steps"] == 7
    assert content(save.path) == content(new.path)


def test_a_torn_push_is_absent(url, tmp_path):
    folder = make_run(tmp_path / "here" / "mine", 100, 200)
    storage = Storage(url)
    storage.push(folder)
    storage._files.delete_file(f"{storage._base}/mine/checkpoints/step-000000200/DONE")
    assert storage.runs()[0].env_steps == 100
    assert storage.fetch("mine", tmp_path / "there").env_steps == 100


def test_a_save_damaged_in_the_storage_is_passed_over(url, tmp_path):
    folder = make_run(tmp_path / "here" / "mine", 100, 200)
    storage = Storage(url)
    storage.push(folder)
    damaged = f"{storage._base}/mine/checkpoints/step-000000200/state.safetensors"
    with storage._files.open_output_stream(damaged) as file:
        file.write(b"no")
    assert storage.fetch("mine", tmp_path / "there").env_steps == 100


def test_a_save_comes_with_those_it_needs(url, tmp_path):
    folder = make_run(tmp_path / "here" / "mine", 100, 200)
    save_at(folder / "checkpoints", 300, needs=["step-000000100"])
    Storage(url).push(folder)
    Storage(url).fetch("mine", tmp_path / "there")
    fetched = checkpoint.saves(tmp_path / "there" / "mine" / "checkpoints")
    assert [save.env_steps for save in fetched] == [100, 300]


def test_metrics_that_grew_shrank_and_grew_again_come_back_whole(url, tmp_path, monkeypatch):
    monkeypatch.setattr("rlcar.storage.runs._PART_BYTES", 1000)
    folder = make_run(tmp_path / "here" / "mine", 100)
    storage, metrics = Storage(url), folder / "metrics.jsonl"
    text = "".join(f'{{"env_steps": {number}}}\n' for number in range(500))
    for size in (5500, 1234, 4000):
        metrics.write_text(text[:size])
        storage.push(folder)
        storage.fetch("mine", tmp_path / f"there{size}")
        there = tmp_path / f"there{size}" / "mine" / "metrics.jsonl"
        assert there.read_text() == text[:size]


def test_what_is_newer_here_is_not_fetched(url, tmp_path):
    folder = make_run(tmp_path / "mine", 100)
    storage = Storage(url)
    storage.push(folder)
    save_at(folder / "checkpoints", 200)
    assert storage.fetch_newer(tmp_path, "auto", "mine") is None
    assert storage.fetch_newer(tmp_path, str(folder), None) is None
    shutil.rmtree(folder)
    assert storage.fetch_newer(tmp_path, str(folder), None).env_steps == 100
    assert storage.fetch_newer(tmp_path, "auto", "nosuch") is None


def test_auto_fetches_no_attempt_of_a_curriculum(tmp_path):
    url = str(tmp_path / "storage")
    assert _NOTE == stage_note.FILE
    note = stage_note.StageNote("tour", 1, 2, "a", 1, 1, 0, None, 1.0)
    for name in ("alone", "tour-s1-a1"):
        folder = make_run(tmp_path / "here" / name, 100)
        if name != "alone":
            stage_note.write(folder, note)
        Storage(url).push(folder)
    fresh, storage = tmp_path / "fresh", Storage(url)
    assert storage.fetch_newer(fresh, "auto", None).path.parent.parent.name == "alone"
    assert storage.fetch_newer(fresh, "auto", "tour-s1-a1").env_steps == 100
    assert stage_note.read(fresh / "tour-s1-a1") == note
    shutil.rmtree(fresh / "alone")  # the attempt here is newer, and is not what is meant
    assert storage.fetch_newer(fresh, "auto", None).path.parent.parent.name == "alone"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("ftp://host/x", "is not an address of storage"),
        ("runs/here", "is not an address of storage"),
        ("file://host/x", "is not an address of storage"),
        ("", "is not an address of storage"),
        ("s3://", "no bucket"),
        ("s3://bucket/x?regoin=a", "unknown option 'regoin'"),
        ("s3://key:secret@bucket/x", "holds credentials"),
    ],
)
def test_an_address_that_is_none_is_one_sentence(address, reason):
    with pytest.raises(StorageError, match=reason) as refusal:
        parse_storage(address)
    assert "secret" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_bucket_is_one_sentence(bucket, s3_server):
    with pytest.raises(StorageError, match="create the bucket 'nosuch' first") as refusal:
        Storage(bucket.replace(parse_storage(bucket).path.partition("/")[0], "nosuch")).check()
    assert "\n" not in str(refusal.value)


@pytest.fixture
def guarded_bucket(bucket, s3_server):
    """The address of a bucket whose server now asks who is there."""
    with requiring_signatures(s3_server):
        yield bucket


def test_a_wrong_key_is_one_sentence_that_says_where_the_right_one_goes(
    guarded_bucket, tmp_path, monkeypatch
):
    folder = make_run(tmp_path / "mine", 100)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    storage = Storage(guarded_bucket)
    for reach in (storage.check, storage.runs, lambda: storage.push(folder)):
        with pytest.raises(StorageError, match="give credentials that may .* there") as refusal:
            reach()
        assert "\n" not in str(refusal.value)
        assert "hidden" not in str(refusal.value)


def test_a_server_that_does_not_answer_is_one_sentence(bucket, s3_server):
    with pytest.raises(StorageError, match="cannot reach the storage s3://") as refusal:
        Storage(bucket.replace(s3_server, "127.0.0.1:1")).check()
    assert "\n" not in str(refusal.value)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="may this user write to it") as refusal:
        Storage(str(tmp_path / "file" / "x")).check()
    assert "\n" not in str(refusal.value)


def test_a_failure_is_warned_of_counted_and_made_good_with_the_next_save(tmp_path, caplog):
    folder = make_run(tmp_path / "mine", 100)
    place = tmp_path / "disk"
    place.write_text("a file where the folder should be")
    with Mirror(folder, str(place / "runs")) as mirror:
        mirror.push()
        wait_until(lambda: mirror.metrics()["storage/failures"])
        place.unlink()
        mirror.push()
    assert mirror.metrics()["storage/pushes"] >= 1
    assert Storage(str(place / "runs")).runs("mine")[0].env_steps == 100
    (warning,) = [
        record.message for record in caplog.records if record.name == "rlcar.storage.mirror"
    ]
    assert "training continues, and the next save will try again" in warning


def test_an_error_of_the_run_s_own_disk_does_not_end_the_mirror(tmp_path):
    folder = tmp_path / ("x" * 300)  # no disk takes such a name: an error, not a folder less
    with Mirror(folder, str(tmp_path / "storage")) as mirror:
        mirror.push()
        wait_until(lambda: mirror.metrics()["storage/failures"] == 1)
        mirror.push()
        wait_until(lambda: mirror.metrics()["storage/failures"] == 2)


def test_a_training_is_mirrored_and_goes_on_from_there_when_its_folder_is_gone(bucket, tmp_path):
    setting = f"training.storage={bucket}"
    plain = ("algorithm=documented", setting)
    with compiled_once():
        train(make_tiny_config("training.env_steps=512", *plain), tmp_path / "a" / "run")
        save = Storage(bucket).fetch_newer(tmp_path / "b", "auto", None)
        outcome = train(make_tiny_config(*plain), tmp_path / "b" / "run", save)
    assert (save.env_steps, outcome.summary["env_steps"]) == (512, 768)
    rows = read_metrics(tmp_path / "b" / "run" / "metrics.jsonl")
    assert rows[0]["env_steps"] < 512
    assert [row for row in rows if "storage/failures" in row][-1]["storage/failures"] == 0
    assert Storage(bucket).runs()[0].env_steps == 768
