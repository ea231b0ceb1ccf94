"""What a scrape of Ray's own metrics endpoint finds of a training."""

import time
import urllib.request

import numpy as np
import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from cluster.training.prometheus import ray_watcher
from rlcar.config import make_config
from rlcar.rollout.compiled import Episodes
from rlcar.runs.exported import FAMILIES
from rlcar.runs.run import Run

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("embedded_ray")]

PATIENCE_S = 60.0


def scraped(run):
    """Name, or name and part, -> value of the samples of one run."""
    node = ray.nodes()[0]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = [
        sample
        for family in families
        for sample in family.samples
        if sample.labels.get("run") == run
    ]
    return {
        (sample.name, sample.labels.get("part") or sample.labels.get("le") or ""): sample.value
        for sample in samples
    }


def test_a_scrape_finds_episodes_and_the_newest_row_of_a_run(tmp_path):
    folder = tmp_path / "watched"
    config = make_config(mode="test")
    episodes = Episodes(512, np.array([-1.0, 3.0]), np.array([40, 60]), np.array([False, True]))
    metrics = {"model/loss": 1.5, "actor/loss": float("nan"), "optimizer/gradient_norm": 2.5}
    watcher = ray_watcher(config, folder)
    with Run(folder, config, watchers=[watcher]) as run, watcher:
        run.drove(episodes)
        run.trained(8, metrics | {"actor/entropy_nats": 0.75, "replay/size_env_steps": 512.0})
        run.log(512, 8)
        run.saved()
        watcher.diverged()
        end_s = time.monotonic() + PATIENCE_S
        while ("ray_rlcar_gradient_norm", "") not in (found := scraped("watched")):
            assert time.monotonic() < end_s
            time.sleep(0.5)
    assert found["ray_rlcar_gradient_norm", ""] == 2.5
    assert found["ray_rlcar_loss", "model"] == 1.5
    assert ("ray_rlcar_loss", "actor") not in found
    assert found["ray_rlcar_policy_entropy_nats", ""] == 0.75
    assert found["ray_rlcar_env_steps", ""] == 512.0
    assert found["ray_rlcar_planned_env_steps", ""] == config.training.env_steps
    assert found["ray_rlcar_replay_size_env_steps", ""] == 512.0
    assert found["ray_rlcar_episode_reward_mean", ""] == 1.0
    assert found["ray_rlcar_lap_rate", ""] == 0.5
    assert found["ray_rlcar_episode_reward_bucket", "0.1"] == 1.0
    assert found["ray_rlcar_episode_reward_bucket", "5.0"] == 2.0
    assert found["ray_rlcar_episode_reward_count", ""] == 2.0
    assert found["ray_rlcar_episode_length_env_steps_bucket", "50.0"] == 1.0
    assert found["ray_rlcar_episode_length_env_steps_bucket", "100.0"] == 2.0
    assert found["ray_rlcar_non_finite_errors", ""] == 1.0
    assert found["ray_rlcar_training_active", ""] == 1.0
    assert found["ray_rlcar_memory_limit_bytes", ""] > found["ray_rlcar_memory_used_bytes", ""] > 0
    for what in ("last_row", "last_checkpoint", "heartbeat", "last_progress", "started"):
        written_s = found[f"ray_rlcar_{what}_timestamp_seconds", ""]
        assert abs(written_s - time.time()) < PATIENCE_S


def test_each_name_is_one_that_prometheus_takes():
    assert all(
        metric.name.startswith("rlcar_") and metric.name.isidentifier() for metric in FAMILIES
    )
