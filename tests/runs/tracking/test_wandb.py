"""A training, its version and a rollout in the offline files of Weights & Biases."""

import json
import struct
import time

import pytest

from rlcar.registry import Registry
from rlcar.registry.tracking import TrackedEvent, track_registry
from rlcar.runs.tracking.open import IDENTITIES
from rlcar.training.loop import train
from tests.support.tiny_run import compiled_once, make_tiny_config
from tests.support.waiting import wait_until

pytest.importorskip("wandb", reason="pip install 'rlcar[wandb]'")

# Of the files of W&B, which are logs as in LevelDB.
HEADER_BYTES, CHUNK_BYTES, BLOCK_BYTES = 7, 7, 1 << 15
WHOLE, LAST = 1, 4


def messages(data):
    """Yields the messages of a file: chunks with a checksum, a length and a kind, in blocks."""
    place, message = HEADER_BYTES, b""
    while place + CHUNK_BYTES <= len(data):
        left = BLOCK_BYTES - place % BLOCK_BYTES
        if left < CHUNK_BYTES:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        place += CHUNK_BYTES
        message += data[place : place + length]
        place += length
        if kind in (WHOLE, LAST):
            yield message
            message = b""


def records(folder):
    """Returns the records of all offline runs below a folder, by the identities of the runs."""
    from wandb.proto.wandb_internal_pb2 import Record

    return {
        path.stem.removeprefix("run-"): list(map(Record.FromString, messages(path.read_bytes())))
        for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))
    }


def test_runs_versions_and_rollouts_are_written_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = make_tiny_config("tracking.trackers=[wandb]")
    run = tmp_path / "runs" / "first"
    with compiled_once():
        train(config, run)
    identity = json.loads((run / IDENTITIES).read_text())["wandb"]
    # A process of W&B writes the files, and may still be busy.
    wait_until(lambda: any(one.HasField("exit") for one in records(run)[identity]))
    written = records(run)[identity]
    rows = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json)
         for item in record.history.item}
        for record in written if record.HasField("history")
    ]  # fmt: skip
    ours = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["env_steps"] for row in rows] == [row["env_steps"] for row in ours]
    assert any("evaluation/lap_rate" in row for row in rows)
    assert [record.exit.exit_code for record in written if record.HasField("exit")] == [0]

    registry = Registry(tmp_path / "models")
    registry.promote(registry.publish(run).number)
    details = {"stable": "7"}
    rollout = TrackedEvent("rollout", "4f1c", "Healthy", 1e9 + 60.0, True, 1e9, 1, details, {})
    track_registry(registry, config.tracking, [rollout], tmp_path)

    def begun():
        found = [record for own in records(tmp_path).values() for record in own]
        return [record.run for record in found if record.HasField("run")]

    wait_until(lambda: {one.job_type for one in begun()} == {"version", "rollout"})
    text = str(begun())
    assert "rlcar.run" in text
    assert "rlcar.candidate" in text

    def folders():
        return len(list(tmp_path.glob("wandb/offline-run-*")))

    track_registry(registry, config.tracking, [rollout], tmp_path)
    assert folders() == 2  # nothing has changed
    time.sleep(1.1)  # the names of folders have the second
    undone = rollout._replace(status="Degraded", is_good=False)
    track_registry(registry, config.tracking, [undone], tmp_path)
    wait_until(lambda: "Degraded" in str(begun()))
    assert folders() == 3  # only the rollout is written again
