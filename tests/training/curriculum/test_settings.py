"""The file of a curriculum: what it may say, and the sentences about what it may not."""

import pytest
import yaml

from rlcar.config import make_config
from rlcar.errors import ConfigError
from rlcar.training.curriculum.checks import changes_between, check_curriculum
from rlcar.training.curriculum.settings import load_curriculum, lower_bound, shipped
from tests.support.tiny_curriculum import curriculum, stage


@pytest.fixture
def load(tmp_path):
    """Returns a function that writes a tree as a YAML file and loads it."""

    def write_and_load(tree, **options):
        path = tmp_path / "stages.yaml"
        path.write_text(yaml.safe_dump(tree))
        return load_curriculum(str(path), **options)

    return write_and_load


def _tree(**changes):
    first = {"name": "one", "world": "grand-prix-1", "success_rate": 0.5, "max_env_steps": 1000}
    return {"name": "two", "stages": [{**first, **changes}]}


@pytest.mark.parametrize("name", shipped())
def test_every_curriculum_that_is_shipped_is_valid_and_can_be_passed(name):
    check_curriculum(load_curriculum(name))


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        (_tree(success_rate=1.2), r"success_rate = 1.2: .*a threshold over 100 %.*0.65 for 65 %"),
        (_tree(success_rate=-0.1), "a share of episodes is from 0 to 1"),
        (_tree(success_rate=0.9), "even 100 successes in 100 episodes prove no more than 0.859"),
        (_tree(success_rate=float("nan")), "success_rate = nan"),
        (_tree(env="Pendulum-v1"), "world 'grand-prix-1' and env 'Pendulum-v1' exclude each other"),
        ({**_tree(), "base": {"world": "classic", "env": "x"}}, "base: .*exclude each other"),
        (_tree(set={"training.env_steps": 5}), "give the max_env_steps of a stage"),
        ({**_tree(), "base": {"set": {"seed": 1}}}, "give the seed of the base"),
        (_tree(success_rate=None), "stage 'one' has no threshold"),
        (_tree(succes_rate=0.5), "unknown setting .*'success_rate'"),
        ({"name": "two", "stages": []}, "names no stages"),
        ({"name": "two"}, "names no stages"),
        ({"name": "two", "stages": [1]}, "stages"),
        ({**_tree(), "stages": _tree()["stages"] * 2}, "two stages are called 'one'"),
        (_tree(attempts=0), "attempts = 0"),
        (_tree(max_env_steps=0), "max_env_steps = 0"),
        ({**_tree(), "confidence": 2}, "confidence"),
        ({**_tree(), "defaults": [1]}, "defaults holds a list"),
    ],
)
def test_a_mistake_in_the_file_is_one_clear_sentence(load, tree, sentence):
    with pytest.raises(ConfigError, match=sentence) as error:
        load(tree)
    assert "\n" not in str(error.value)


def test_an_unknown_curriculum_is_answered_with_those_that_exist():
    with pytest.raises(ConfigError, match=r"there is no curriculum 'grand-pri'.*grand-prix"):
        load_curriculum("grand-pri")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"set": {"race.time_limit_steps": 40}}, r"can lap more than 0 % .* limit of 40 steps"),
        ({"world": "moon"}, "stage 'one': unknown world 'moon'"),
        ({"set": {"ppo.nonsense": 1}}, "stage 'one': unknown setting 'ppo.nonsense'"),
    ],
)
def test_a_stage_that_cannot_be_trained_or_passed_is_refused_with_its_name(load, changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        check_curriculum(load(_tree(**changes)))


def test_stages_that_need_different_learners_are_refused():
    with pytest.raises(ConfigError, match="stage 'b' needs another learner than the first"):
        check_curriculum(curriculum(stage("a"), stage("b", set={"ppo.hidden_units": 16})))
    with pytest.raises(ConfigError, match="stage 'b' trains sac, and the first stage ppo"):
        check_curriculum(curriculum(stage("a"), stage("b", set={"algorithm": "sac"})))


def test_stages_inherit_defaults_and_the_base_and_overrides_win(load):
    tree = _tree(set={"training.cars": 4})
    tree["base"] = {"preset": "fused-ppo", "set": {"training.cars": 2, "ppo.epochs": 3}}
    tree["defaults"] = {"attempts": 7, "set": {"ppo.discount": 0.9, "training.cars": 3}}
    loaded = load(tree, overrides=["ppo.epochs=2"], seed=5)
    config = loaded.config(0, 2)
    assert loaded.stages[0].attempts == 7
    assert (config.training.cars, config.ppo.epochs, config.ppo.discount) == (4, 2, 0.9)
    assert (config.training.env_steps, config.seed) == (1000, 6)


def test_the_environment_of_a_stage_wins_over_that_of_defaults_and_base(load):
    tree = _tree(world=None, env="Pendulum-v1", success_rate=None, mean_reward=-500.0)
    tree["base"], tree["defaults"] = {"world": "classic"}, {"world": "grand-prix-1"}
    assert load(tree).config(0, 1).environment.id == "Pendulum-v1"
    tree = _tree() | {"base": {"env": "Pendulum-v1"}, "defaults": {"env": "Pendulum-v1"}}
    assert load(tree).config(0, 1).is_race


def test_a_replay_buffer_that_cannot_be_carried_is_refused():
    base = {"preset": "sac", "mode": "test", "env": "Pendulum-v1"}
    other = stage("b", set={"training.block_length": 16})
    made = curriculum(stage("a"), other, base=base)
    with pytest.raises(ConfigError, match="stage 'b' has training.block_length 16, and the first"):
        check_curriculum(made)


def test_the_fingerprint_knows_every_setting_and_no_comment(load, tmp_path):
    same = load(_tree())
    assert same.fingerprint == load(_tree()).fingerprint
    assert same.fingerprint != load(_tree(attempts=4)).fingerprint
    assert same.fingerprint != load(_tree(), overrides=["ppo.epochs=2"]).fingerprint
    assert same.fingerprint != load(_tree(), seed=1).fingerprint


def test_all_confirmations_together_risk_no_more_than_the_confidence_allows():
    made = curriculum(stage("a"), confidence=0.9)
    risks = [1 - made.level(number) for number in range(1, 10_000)]
    assert risks[:2] == pytest.approx([0.06079, 0.01520], abs=1e-5)
    assert 0.0999 < sum(risks) < 0.1
    assert lower_bound(60, 100, 0.975) == pytest.approx(0.5020, abs=1e-4)  # 95 %, two-sided


def test_a_changed_setting_of_the_learner_is_listed_at_a_boundary():
    made = curriculum(stage("a"), stage("b", set={"ppo.discount": 0.5}))
    assert changes_between(made.config(0, 1), made.config(1, 1)) == ["ppo.discount: 0.99 -> 0.5"]
    assert changes_between(made.config(0, 1), made.config(0, 2)) == []


def test_a_changed_reward_of_the_environment_is_listed_at_a_boundary():
    before = make_config("ppo", "test", overrides=["race.reward=documented"])
    after = make_config("ppo", "test")
    assert changes_between(before, after) == ["race.reward: documented -> progress"]
