"""A training, its versions and their rollouts in a real MLflow database."""

import json
import shutil

import pytest

from rlcar.registry import Registry
from rlcar.registry.tracking import TrackedEvent, track_registry
from rlcar.runs.tracking.open import IDENTITIES, open_tracking
from rlcar.runs.tracking.tracker import TrackingError
from rlcar.storage import checkpoint
from rlcar.training.loop import train
from tests.support.tiny_run import compiled_once, make_tiny_config

mlflow = pytest.importorskip("mlflow", reason="pip install 'rlcar[mlflow]'")
# MLflow and the database library that it uses warn about themselves.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(scope="module")
def config(uri):
    return make_tiny_config("tracking.trackers=[mlflow]", f"tracking.mlflow_uri={uri}")


@pytest.fixture(scope="module")
def client(uri):
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "first"
    with compiled_once():
        train(config, folder)
    return folder


def identity(folder):
    return json.loads((folder / IDENTITIES).read_text())["mlflow"]


def test_the_run_has_every_row_of_the_metrics_with_its_settings(run, client):
    found = client.get_run(identity(run))
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "first"
    assert found.data.params["training.cars"] == "4"
    assert found.data.tags["rlcar.run"] == "first"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    ours = [(row["env_steps"], row["episode/count"]) for row in rows if "episode/count" in row]
    theirs = client.get_metric_history(identity(run), "episode/count")
    assert sorted({(one.step, one.value) for one in theirs}) == sorted(set(ours))
    assert "evaluation/lap_rate" in found.data.metrics


def test_a_resumed_training_continues_its_run(run, config, client, tmp_path):
    folder = tmp_path / "first"
    shutil.copytree(run, folder)
    longer = config.model_copy(
        update={"training": config.training.model_copy(update={"env_steps": 896})}
    )
    before = len(client.search_runs([client.get_run(identity(run)).info.experiment_id]))
    with compiled_once():
        train(longer, folder, checkpoint.latest(folder / "checkpoints"))
    assert identity(folder) == identity(run)
    steps = {one.step for one in client.get_metric_history(identity(run), "episode/count")}
    assert max(steps) == 896
    experiment = client.get_run(identity(run)).info.experiment_id
    assert len(client.search_runs([experiment])) == before


def test_a_run_that_has_not_reached_its_end_is_interrupted(config, client, tmp_path):
    with open_tracking(tmp_path, config) as tracking:
        tracking.write(10, {"episode/reward": 2.0, "model/loss": float("nan")})
    found = client.get_run(identity(tmp_path))
    assert found.info.status == "KILLED"
    assert found.data.metrics == {"episode/reward": 2.0}


def test_a_version_leads_to_its_run_and_a_rollout_to_its_version(run, config, client, tmp_path):
    registry = Registry(tmp_path / "models")
    number = registry.publish(run).number
    registry.promote(number)
    details = {"stable": "7", "message": "begun"}
    begun = TrackedEvent(
        "rollout",
        "4f1c",
        "Progressing",
        None,
        False,
        1e9,
        number,
        details,
        {"weight_pct": 10.0},
    )
    for rollout in (
        begun,
        begun._replace(
            status="Healthy", ended_s=1e9 + 60.0, is_good=True, metrics={"weight_pct": 100.0}
        ),
    ):
        track_registry(registry, config.tracking, [rollout], tmp_path)
    champion = client.get_model_version_by_alias("rlcar", "champion")
    assert champion.run_id == identity(run)
    assert champion.tags["rlcar.version"] == str(number)
    assert champion.tags["rlcar.rollout.4f1c"] == "Healthy"
    assert client.get_run(identity(run)).data.tags[f"rlcar.version.{number}"] == str(
        champion.version
    )
    assert len(client.search_model_versions("name = 'rlcar'")) == 1  # though it was copied twice
    experiment = client.get_run(identity(run)).info.experiment_id
    (found,) = client.search_runs([experiment], "tags.`rlcar.rollout` = '4f1c'")
    assert found.info.status == "FINISHED"
    assert found.info.end_time - found.info.start_time == 60_000
    assert found.data.tags["rlcar.candidate"] == str(number)
    assert found.data.tags["rlcar.status"] == "Healthy"
    assert found.data.tags["rlcar.message"] == "begun"
    assert found.data.metrics["weight_pct"] == 100.0


def test_a_repetition_moves_no_end_and_takes_back_the_aliases_that_were_removed(
    run, config, client, tmp_path
):
    registry = Registry(tmp_path / "models")
    number = registry.publish(run).number
    for alias in ("champion", "candidate", "v2"):
        registry.promote(number, alias)
    settings = config.tracking.model_copy(update={"project": "repeated"})
    rollout = TrackedEvent("rollout", "5e2d", "Degraded", 1e9 + 60.0, False, 1e9, number, {}, {})
    said = []

    def copied():
        track_registry(registry, settings, [rollout], tmp_path, said.append)
        experiment = client.get_experiment_by_name("repeated").experiment_id
        (found,) = client.search_runs([experiment])
        assert (found.info.status, found.info.end_time) == ("FAILED", 1_000_000_060_000)
        return set(client.get_registered_model("repeated").aliases)

    assert copied() == {"champion", "candidate"}
    assert "MLflow has no alias v2, because it reserves such names" in said
    version = client.get_model_version_by_alias("repeated", "champion").version
    client.set_registered_model_alias("repeated", "chosen-there", version)
    shutil.rmtree(tmp_path / "models" / "aliases" / "candidate")
    assert copied() == {"champion", "chosen-there"}


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns", "nonsense://x"])
def test_a_store_that_cannot_be_used_is_one_sentence(tmp_path, uri):
    config = make_tiny_config("tracking.trackers=[mlflow]", f"tracking.mlflow_uri={uri}")
    with pytest.raises(TrackingError, match=r"sqlite:///runs/mlflow\.db") as caught:
        open_tracking(tmp_path, config)
    assert "\n" not in str(caught.value)


def test_a_server_that_is_away_is_one_sentence(tmp_path):
    uri = "http://127.0.0.1:9"
    config = make_tiny_config("tracking.trackers=[mlflow]", f"tracking.mlflow_uri={uri}")
    with pytest.raises(TrackingError, match="MLflow cannot be used: .*127.0.0.1"):
        open_tracking(tmp_path, config)
