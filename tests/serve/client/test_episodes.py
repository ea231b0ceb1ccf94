"""A served policy acts in episodes of another environment than the race, over the network."""

import io
import shutil

import httpx
import numpy as np
import pytest
from rich.console import Console

from rlcar.cli.drive import drive as drive_command
from rlcar.config import EnvironmentConfig, make_config
from rlcar.datasets import Dataset
from rlcar.envs.single import SingleEnvironment
from rlcar.errors import UserError
from rlcar.registry import Registry
from serve.client import episodes as episodes_module
from serve.client.client import DriveClient, ServerError
from serve.client.episodes import drive_episodes, print_episodes, require_fit
from serve.delivery.operator import Operator
from serve.delivery.specification import parse_specification
from serve.policy.policy import try_model
from tests.serve import served
from tests.support.hand_made_versions import publish_constant
from tests.support.target_environment import ID
from tests.support.untrained_run import write_run
from tests.support.waiting import wait_until

EPISODES = 5


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """A version that always goes to the target, and one that always goes away from it."""
    folder = tmp_path_factory.mktemp("registry") / "models"
    for action in (0.9, -0.9):
        publish_constant(folder, ID, action)
    Registry(folder).promote(1)
    return folder


@pytest.fixture(scope="module")
def url(registry):
    with served.serving(registry) as server:
        yield f"http://127.0.0.1:{server.port}"


def _in_process(action, seed):
    """The total reward and the steps of one episode, without a network."""
    environment = SingleEnvironment(EnvironmentConfig(id=ID), seed)
    environment.reset()
    reward = 0.0
    for steps in range(1, 100):
        step = environment.step(np.array([action], np.float32))
        reward += step.reward
        if step.is_last:
            environment.close()
            return reward, steps
    raise AssertionError("the episode does not end")


@pytest.mark.parametrize("websocket", [False, True])
def test_episodes_over_the_network_are_those_of_the_policy(url, websocket):
    with DriveClient(url, websocket=websocket, timeout_ms=1000) as client:
        result = drive_episodes(client, episodes=EPISODES)
    assert (result["model_version"], result["environment"]) == (1, ID)
    assert (result["success_rate"], result["ended"]) == (1.0, EPISODES)
    assert result["reasons"] == {"arrived": EPISODES}
    assert result["fallbacks"] == result["holds"] == result["timeouts"] == 0
    rewards, steps = zip(*(_in_process(0.9, 3_000_000 + i) for i in range(EPISODES)), strict=True)
    np.testing.assert_allclose(result["mean_reward"], np.mean(rewards), rtol=1e-5)
    assert result["mean_steps"] == np.mean(steps)
    assert result["requests"] == 1 + max(steps)


def test_episodes_that_do_not_end_are_no_successes(url, monkeypatch):
    monkeypatch.setattr(episodes_module, "_MOST_STEPS", 15)
    with DriveClient(url, timeout_ms=1000) as client:
        result = drive_episodes(client, episodes=EPISODES)
    assert 0 < result["ended"] < EPISODES
    assert result["success_rate"] == result["ended"] / EPISODES


def test_an_untrained_lander_is_published_served_and_flown_to_the_end(tmp_path):
    config = make_config("ppo", "test", environment="rlcar/Lander-v0")
    registry = Registry(tmp_path / "models")
    version = registry.publish(write_run(tmp_path / "run", config))
    assert [entry["name"] for entry in version.metadata["action"]][:2] == ["throttle", "gimbal_x"]
    with served.serving(tmp_path / "models") as server:
        results = []
        for websocket in (False, True):
            url = f"http://127.0.0.1:{server.port}"
            with DriveClient(url, websocket=websocket, timeout_ms=1000) as client:
                results.append(drive_episodes(client, episodes=2))
    for result in results:
        assert (result["environment"], result["ended"]) == ("rlcar/Lander-v0", 2)
        assert (result["fallbacks"], result["holds"]) == (0, 0)
        assert sum(result["reasons"].values()) == 2
        assert result["success_rate"] is not None
    assert results[0]["mean_reward"] == results[1]["mean_reward"]


def test_the_server_describes_the_version_that_acts(url):
    schemas = httpx.get(f"{url}/openapi.json").json()["components"]["schemas"]
    one = schemas["ActRequest"]["oneOf"][0]["properties"]
    assert (one["observation"]["minItems"], one["observation"]["maxItems"]) == (3, 3)
    assert schemas["ActAnswer"]["properties"]["action"]["maxItems"] == 1
    seen = {"observation": [-0.5, 0.0, 1.0]}
    answer = httpx.post(f"{url}/v1/act", json=seen).json()
    np.testing.assert_allclose(answer["action"], [0.9], atol=1e-5)
    assert 'action="action_0"' in httpx.get(f"{url}/metrics").text


def test_a_request_of_another_size_is_refused_with_the_safe_action(url):
    for body, problem in (
        ({"observation": [0.5] * 6}, "observation 0 has 6 numbers: this model takes 3"),
        (
            {"observation": [0.0] * 3, "executed": {"action": [0.0, 0.0], "source": "human"}},
            "an executed action has 2 numbers: those of this model have 1",
        ),
    ):
        answer = httpx.post(f"{url}/v1/act", json=body)
        assert answer.status_code == 422
        assert answer.json()["error"] == problem
        assert answer.json()["action"] == [0.0]
    with DriveClient(url, websocket=True, timeout_ms=1000) as client:
        client.check()
        reply = client.act(np.zeros(6))
        assert reply.action.tolist() == [[0.0]]
        assert "an observation of this model has 3 numbers" in str(reply.error)


def test_a_client_that_knows_no_safe_action_expects_a_car(url):
    with DriveClient(url, timeout_ms=1000) as client:
        reply = client.act(np.zeros(3))
        assert "call `check` first, or give safe_action=" in str(reply.error)
    with DriveClient(url, timeout_ms=1000, safe_action=[-0.25]) as client:
        assert client.act(np.zeros(3)).source == "model"
        client.close()
        assert [client.act(np.zeros(3)).action.tolist() for _ in range(4)][-1] == [[-0.25]]
    with pytest.raises(ServerError, match=r"safe_action=\[2\.0\]: give one or more numbers"):
        DriveClient(url, safe_action=[2.0])


def test_an_environment_that_does_not_fit_is_one_sentence(url):
    with DriveClient(url, timeout_ms=1000) as client:
        for name, problem in (
            ("MountainCarContinuous-v0", "has 2 numbers to observe and 1 numbers to act with"),
            ("CartPole-v1", "has 4 numbers to observe and 2 discrete actions"),
        ):
            with pytest.raises(UserError, match=problem) as error:
                drive_episodes(client, EnvironmentConfig(id=name), episodes=1)
            assert "observes 3 numbers and acts with 1" in str(error.value)
            assert "\n" not in str(error.value)


def test_episodes_are_recorded_and_count_for_a_rollout(registry, tmp_path):
    # A copy, because the server of the other tests follows the rollouts of its registry.
    registry = shutil.copytree(registry, tmp_path / "models")
    steps = [{"setWeight": 100.0}, {"pause": {}}]
    specification = parse_specification({"strategy": {"canary": {"steps": steps}}})
    operator = Operator(Registry(registry), "champion", "me")
    operator.start(2, specification, try_model)
    try:
        with served.serving(registry, record=tmp_path / "recorded") as server:
            url = f"http://127.0.0.1:{server.port}"
            with DriveClient(url, timeout_ms=1000) as client:
                result = drive_episodes(client, episodes=EPISODES)
                counts = server.config.app.app.action_service.arms.counts
            # The drift is computed in a thread of its own.
            message = "drift is watched only for policies of the race"
            wait_until(lambda: message in httpx.get(f"{url}/v1/drift").text)
    finally:
        operator.abort("the test is over")
    assert (result["success_rate"], result["episodes_counted"]) == (0.0, EPISODES)
    assert {(one.is_canary, one.value) for one in counts.successes} == {(True, 0.0)}
    rewards = sorted(one.value for one in counts.rewards)
    np.testing.assert_allclose(rewards, -4.5, rtol=1e-5)
    (folder,) = (tmp_path / "recorded").glob("server-*")
    episodes = list(Dataset.open(folder).episodes_iter())
    assert len(episodes) == EPISODES
    for episode in episodes:
        assert (episode.observation.shape, episode.action.shape) == ((51, 3), (50, 1))
        assert (episode.is_terminal, episode.is_truncated) == (False, True)
    console = Console(file=io.StringIO(), width=100)
    print_episodes(result, console)
    assert "too late 5" in console.file.getvalue()


def test_the_command_acts_in_the_environment_of_the_version(url, capsys):
    drive_command(url, websocket=True, timeout_ms=1000.0, episodes=2)
    printed = capsys.readouterr().out
    assert "figure success_rate=1" in printed
    settings = ["environment.time_limit_steps=3"]
    drive_command(url, env=ID, set_=settings, timeout_ms=1000.0, episodes=2)
    assert "figure mean_steps=3" in capsys.readouterr().out
    with pytest.raises(UserError, match="--noise 0.1 is for the race, and the policy acts in"):
        drive_command(url, noise="0.1")
    with pytest.raises(UserError, match="it changes the environment that --env names"):
        drive_command(url, set_=settings)


def test_a_policy_of_the_race_needs_no_environment():
    entry = [{}] * 6
    model = {"version": 3, "observation": entry, "action": entry[:2], "config": {}}
    environment = SingleEnvironment(EnvironmentConfig(id="Pendulum-v1"), 0)
    with pytest.raises(UserError, match="version 3 was trained in .*Pendulum-v1 has 3 numbers"):
        require_fit(model, environment.spec, "Pendulum-v1")
    environment.close()
