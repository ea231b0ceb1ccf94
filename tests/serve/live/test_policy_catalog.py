"""The policies that the page can drive with."""

import pickle

import numpy as np
import pytest

from rlcar.config import make_config
from rlcar.errors import UserError
from rlcar.registry.exchange import exported_bytes
from rlcar.types import TimeStep
from serve.live.loaded_policy import StatefulPolicy, first_action
from serve.live.policy_catalog import open_catalog
from tests.serve.live.live_page import save_run
from tests.serve.served import damage, publish
from tests.support.untrained_run import write_run

SEEN = [0.5, 0.6, 0.9, 0.5, 0.4, 0.2]


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "models"
    for seed in range(11):
        publish(folder, seed, alias="champion" if seed == 1 else None)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("runs") / "begun", 128)


def _time_step(is_first):
    nothing = np.zeros(1, bool)
    first = np.array([is_first])
    return TimeStep(np.array([SEEN], np.float32), np.zeros(1), first, nothing, nothing)


def test_versions_are_listed_by_number_the_newest_first(registry):
    numbers = [entry["version"] for entry in open_catalog(registry, None).entries()]
    assert numbers == list(range(11, 0, -1))


@pytest.mark.parametrize(
    "file", ["2", "champion", "versions/00000002", "versions/00000002/policy.safetensors"]
)
def test_a_version_is_loaded_by_number_alias_or_file(registry, file):
    loaded = open_catalog(registry, None).load(file)
    assert (loaded.version, loaded.label) == (2, "version 2")


@pytest.mark.parametrize(
    "file",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "versions/00000002/../00000003",
        "versions/00000099",
        "checkpoints/step-000000128",
        "best/../../x",
        "nobody",
        "-1",
        "1e3",
        "\0",
        "１",
        "live",
    ],
)
def test_nothing_else_is_loaded(registry, file):
    with pytest.raises(UserError):
        open_catalog(registry, None).load(file)


def test_without_a_run_the_champion_drives_first(registry):
    assert open_catalog(registry, None).first().version == 2


def test_without_a_run_a_version_that_is_asked_for_drives_first(registry):
    assert open_catalog(registry, None, "5").first().version == 5


def test_with_a_run_its_newest_save_drives_first_and_each_can_be_loaded(registry, run):
    catalog = open_catalog(registry, run)
    loaded = catalog.first()
    assert (loaded.env_steps, loaded.version) == (128, None)
    assert loaded.label == "begun at 128 env steps"
    assert catalog.newest(than=128) is None
    assert catalog.saves()[0]["file"] == "checkpoints/step-000000128"
    assert catalog.load("checkpoints/step-000000128").env_steps == 128
    with pytest.raises(UserError):
        catalog.load("checkpoints/step-000000999")


def test_a_published_policy_is_the_driving_one(tmp_path, run):
    catalog = open_catalog(tmp_path / "models", run)
    loaded = catalog.first()
    number = catalog.publish(loaded, "from the page")
    again = catalog.load(str(number))
    assert first_action(again, SEEN) == first_action(loaded, SEEN)
    assert catalog.entries()[0]["description"] == "from the page"
    assert catalog.entries()[0]["run"] == "begun"


def test_an_exported_file_of_the_model_folder_is_loaded_and_others_are_refused(tmp_path):
    publish(tmp_path, 1)
    catalog = open_catalog(tmp_path, None)
    model = catalog.load("1").model
    (tmp_path / "mine.safetensors").write_bytes(exported_bytes(model, None))
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(print))
    (tmp_path / "link.safetensors").symlink_to("/etc/passwd")
    assert catalog.files() == ["evil.pkl", "mine.safetensors"]
    loaded = catalog.load("mine.safetensors")
    assert (loaded.label, loaded.version) == ("mine.safetensors", None)
    assert first_action(loaded, SEEN) == first_action(catalog.load("1"), SEEN)
    for file in ("evil.pkl", "link.safetensors", "none.safetensors", "../mine.safetensors"):
        with pytest.raises(UserError):
            catalog.load(file)


def test_a_damaged_version_is_not_loaded(tmp_path):
    publish(tmp_path, 1)
    damage(tmp_path, 1)
    with pytest.raises(UserError, match="damaged"):
        open_catalog(tmp_path, None).load("1")


def test_a_policy_that_watches_remembers_what_the_person_did(registry):
    loaded = open_catalog(registry, None).load("1")

    def second_action(done):
        policy = StatefulPolicy(loaded)
        policy.act(_time_step(True))
        policy.record_action(np.float32(done))
        return policy.act(_time_step(False))

    assert not np.allclose(second_action([1.0, -1.0]), second_action([-1.0, 1.0]))


def test_a_change_of_policy_keeps_the_memory_of_one_that_remembers_alike(registry):
    catalog = open_catalog(registry, None)
    kept, fresh = StatefulPolicy(catalog.load("1")), StatefulPolicy(catalog.load("3"))
    for step in range(5):
        kept.act(_time_step(step == 0))
    kept.replace(catalog.load("3"))
    assert not np.array_equal(kept.act(_time_step(False)), fresh.act(_time_step(False)))
    assert kept.latent.sum() == len(kept.latent)


def test_an_observation_of_another_size_is_one_sentence(registry):
    with pytest.raises(UserError, match="3 numbers: version 1 needs 6"):
        first_action(open_catalog(registry, None).load("1"), [0.0, 0.0, 0.0])


def test_a_policy_that_cannot_act_here_is_tried_only_once(tmp_path):
    run = write_run(tmp_path / "run", make_config("ppo", "test", environment="CartPole-v1"))
    catalog = open_catalog(tmp_path / "models", run)
    with pytest.raises(UserError, match="with 2 discrete actions"):
        catalog.newest()
    assert catalog.newest() is None
