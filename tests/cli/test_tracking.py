"""`rlcar models track` copies a registry to a tracker, or says what is missing."""

import pytest
from typer.testing import CliRunner

from cluster.pipeline import journal
from rlcar.cli import app
from rlcar.errors import UserError
from rlcar.registry import Registry
from serve.delivery.events import Aborted
from serve.delivery.operator import Operator
from tests.support.hand_made_versions import publish_follower

# MLflow and the database library that it uses warn about themselves.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def run(folder, *words):
    places = ("--registry", str(folder / "models"), "--runs", str(folder / "runs"))
    return CliRunner().invoke(app, ["models", "track", *words, *places])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name a tracker with --to mlflow or --to wandb"),
        (("--to", "mlfow"), "trackers.0 = 'mlfow': Input should be 'mlflow' or 'wandb'"),
        (("--to", "mlflow", "--project", "a/b"), "project = 'a/b'"),
        (("--to", "mlflow", "--pipeline", "nowhere"), "nowhere holds no run of a pipeline"),
        (("--to", "mlflow", "--mlflow-uri", "mysql://me:secret@host/x"), "it holds a password"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, words, said):
    result = run(tmp_path, *words)
    assert isinstance(result.exception, UserError)
    assert said in str(result.exception)


def test_versions_and_rollouts_are_in_mlflow(tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="pip install 'rlcar[mlflow]'")
    for throttle in (0.15, 0.2):
        publish_follower(tmp_path / "models", throttle)
    Registry(tmp_path / "models").promote(1)
    begun = CliRunner().invoke(
        app, ["rollout", "start", "2", "--registry", str(tmp_path / "models")]
    )
    assert begun.exit_code == 0, begun.output
    pipeline = journal.begin(tmp_path / "learning", {}, {})
    pipeline.write(
        journal.Entry(
            "train", 1.0, 4.5, {}, {"trained_run": "runs/x"}, "diverged", "training failed"
        )
    )
    copied = run(tmp_path, "--to", "mlflow", "--pipeline", str(tmp_path / "learning"))
    assert copied.exit_code == 0, copied.exception
    assert "MLflow has 2 versions, 1 rollout, 1 pipeline run" in copied.output
    uri = f"sqlite:///{tmp_path}/runs/mlflow.db"
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    candidate = client.get_model_version_by_alias("rlcar", "candidate")
    assert candidate.tags["rlcar.version"] == "2"
    assert "Progressing" in candidate.tags.values()
    experiment = client.get_experiment_by_name("rlcar").experiment_id
    (found,) = client.search_runs([experiment], "tags.`rlcar.pipeline` = 'learning/1'")
    assert found.info.status == "FAILED"
    assert found.data.tags["rlcar.run"] == "x"
    assert found.data.metrics["stage/train_s"] == 3.5

    ended = CliRunner().invoke(app, ["rollout", "abort", "--registry", str(tmp_path / "models")])
    assert ended.exit_code == 0, ended.output
    assert run(tmp_path, "--to", "mlflow").exit_code == 0
    entries = Operator(Registry(tmp_path / "models"), "champion", "me").read().entries
    (aborted_s,) = (one.time_s for one in entries if isinstance(one.event, Aborted))
    (found,) = client.search_runs([experiment], "tags.`rlcar.status` = 'Degraded'")
    assert found.info.end_time == int(1e3 * aborted_s)
