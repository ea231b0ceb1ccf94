"""A film of an episode of a compiled environment."""

from PIL import Image

from rlcar.agents import make_agent
from rlcar.config import make_config
from rlcar.evaluation.environment import spec_of
from rlcar.runs.run import Run
from rlcar.types import Evaluation, Weights
from rlcar.viewing.film import film_episode, is_compiled_run


def test_an_episode_of_the_lander_is_filmed(tmp_path):
    config = make_config(
        algorithm="ppo",
        mode="test",
        environment="rlcar/Lander-v0",
        overrides=["environment.settings.time_limit_steps=40"],
    )
    agent = make_agent(config, spec_of(config))
    params = agent.learner.policy_params(agent.learner.init(0))
    with Run(tmp_path / "run", config) as run:
        run.evaluated(0, Weights(0, params), Evaluation({}, 0.0))
    assert is_compiled_run(tmp_path / "run")
    out = tmp_path / "episode.gif"
    result = film_episode(out, tmp_path / "run", 3)
    assert result.startswith("run: time_limit after 40 steps, reward -")
    with Image.open(out) as film:
        assert film.n_frames == 21  # every other one of 41 pictures
        first = film.convert("RGB").tobytes()
        film.seek(film.n_frames - 1)
        assert film.convert("RGB").tobytes() != first
