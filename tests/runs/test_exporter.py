"""A training without Ray answers Prometheus at a port of its own, and announces that port."""

import json
import math
import time
import urllib.request

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from rlcar.config import make_config
from rlcar.errors import UserError
from rlcar.rollout.compiled import Episodes
from rlcar.runs.exporter import exporting
from rlcar.runs.run import Run

EPISODES = Episodes(512, np.array([-1.0, 3.0]), np.array([40, 60]), np.array([False, True]))


def port_of(folder):
    (group,) = json.loads((folder.parent / "targets" / f"{folder.name}.json").read_text())
    assert group["labels"] == {"run": folder.name}
    return int(group["targets"][0].removeprefix("localhost:"))


def scraped(port):
    """Name, or name with part or bound, -> value."""
    with urllib.request.urlopen(f"http://localhost:{port}/metrics", timeout=30) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {
        sample.name + (sample.labels.get("part") or sample.labels.get("le") or ""): sample.value
        for family in families
        for sample in family.samples
        if sample.labels.get("run", "watched") == "watched"
    }


def test_a_scrape_finds_what_ray_would_export_under_the_same_names(tmp_path):
    folder, config = tmp_path / "watched", make_config(mode="test")
    folder.mkdir()
    with (
        exporting(config, folder, 0) as watcher,
        Run(folder, config, watchers=[watcher]) as run,
    ):
        run.drove(EPISODES)
        run.trained(8, {"model/loss": 1.5, "actor/loss": math.nan, "actor/entropy": 0.75})
        run.log(512, 8)
        run.saved()
        found = scraped(port_of(folder))
        assert found["rlcar_lossmodel"] == 1.5
        assert "rlcar_lossactor" not in found
        assert found["rlcar_policy_entropy_nats"] == 0.75
        assert found["rlcar_env_steps"] == 512
        assert found["rlcar_episode_reward_mean"] == 1.0
        assert found["rlcar_episode_reward_bucket0.1"] == 1
        assert found["rlcar_episode_reward_bucket5.0"] == 2
        assert found["rlcar_training_active"] == 1
        assert found["rlcar_checkpoint_interval_seconds"] == config.training.checkpoint_every_s
        assert found["rlcar_disk_free_bytes"] <= found["rlcar_disk_size_bytes"]
        assert found["process_resident_memory_bytes"] > 0
        for what in ("last_row", "last_checkpoint", "heartbeat", "last_progress", "started"):
            assert abs(found[f"rlcar_{what}_timestamp_seconds"] - time.time()) < 60


def test_a_value_that_becomes_nan_keeps_its_last_value_and_is_counted(tmp_path):
    folder, config = tmp_path / "watched", make_config(mode="test")
    with (
        exporting(config, folder, 0) as watcher,
        Run(folder, config, watchers=[watcher]) as run,
    ):
        run.trained(8, {"model/loss": 1.5})
        run.log(512, 8)
        run.trained(8, {"model/loss": math.inf})
        run.log(640, 16)
        watcher.diverged()
        found = scraped(port_of(folder))
    assert found["rlcar_lossmodel"] == 1.5
    assert found["rlcar_env_steps"] == 640
    assert found["rlcar_non_finite_errors"] == 1
    assert not any(math.isnan(value) for value in found.values())


@pytest.mark.parametrize(
    ("error", "is_announced"),
    [(None, False), (SystemExit(130), False), (UserError("disk full"), True)],
    ids=["finished", "stopped", "failed"],
)
def test_only_a_failed_training_stays_announced(error, is_announced, tmp_path):
    folder = tmp_path / "watched"
    folder.mkdir()

    def end():
        with exporting(make_config(mode="test"), folder, 0):
            assert port_of(folder) > 0
            if error is not None:
                raise error

    if error is None:
        end()
    else:
        with pytest.raises(type(error)):
            end()
    assert (tmp_path / "targets" / "watched.json").exists() == is_announced


def test_a_port_that_is_taken_is_one_sentence(tmp_path):
    folder, config = tmp_path / "watched", make_config(mode="test")
    with exporting(config, folder, 0):
        port = port_of(folder)
        with (
            pytest.raises(UserError, match=rf"--metrics-port {port} cannot be used .*in use"),
            exporting(config, tmp_path / "other", port),
        ):
            raise AssertionError
    assert not (tmp_path / "targets" / "other.json").exists()
