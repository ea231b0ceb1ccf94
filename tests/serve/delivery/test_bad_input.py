"""Whatever is wrong about a rollout is one sentence, over HTTP and on the command line alike."""

import json

import httpx
import pytest
from typer.testing import CliRunner

from rlcar.cli import app
from rlcar.errors import UserError
from rlcar.registry import Registry
from serve.guard.tokens import TokenStore
from tests.serve.served import serving
from tests.support.hand_made_versions import publish_constant, publish_follower

CANARY = {"strategy": {"canary": {"steps": [{"setWeight": 10}, {"pause": {}}]}}}


def weighted(weight):
    return {"strategy": {"canary": {"steps": [{"setWeight": weight}]}}}


# The version to start, its specification, the HTTP status, and what the sentence says.
STARTS = {
    "weight over 100": (2, weighted(101), 422, "setWeight = 101: Input should be less than or eq"),
    "negative weight": (2, weighted(-1), 422, "setWeight = -1: Input should be greater than or e"),
    "no weight": (2, weighted("ten"), 422, "setWeight = 'ten': Input should be a valid number"),
    "infinite weight": (2, weighted(1e999), 422, "setWeight"),
    "misspelt strategy": (2, {"strategy": {"canry": {}}}, 422, "did you mean 'canary'?"),
    "misspelt gate": (2, CANARY | {"gates": {"simulaton": {}}}, 422, "did you mean 'simulation'?"),
    "unknown version": (9, CANARY, 404, "there is no version 9 in"),
    "unknown alias": ("chmpion", CANARY, 404, "there is no alias 'chmpion' in"),
    "the stable version": (1, CANARY, 409, "version 1 is champion already: start a rollout of an"),
    "another model": (3, CANARY, 409, "version 3 has another observation (3 numbers) than version"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A registry and tokens: version 1 is the champion, and 3 drives no car."""
    folder = tmp_path_factory.mktemp("bad")
    for throttle in (0.15, 0.2):
        publish_follower(folder / "models", throttle)
    publish_constant(folder / "models", "Pendulum-v1", 0.0)
    Registry(folder / "models").promote(1)
    return folder


@pytest.fixture(scope="module")
def send(place):
    """Sends a request with a token of a scope; returns the status and the sentence."""
    store = TokenStore(place / "tokens.json")
    tokens = {scope: store.create(scope, [scope]) for scope in ("read", "act", "admin")}
    registry = place / "models"
    with serving(registry, poll_s=0.05, auth=True, tokens=store.path, requests_per_s=1e6,
                 changes_per_s=1e6) as server:  # fmt: skip

        def request(path, body, scope):
            content = body if isinstance(body, str) else json.dumps(body)
            headers = {"authorization": f"Bearer {tokens[scope]}"} if scope else {}
            url = f"http://127.0.0.1:{server.port}{path}"
            answer = httpx.post(url, content=content, headers=headers, timeout=30)
            return answer.status_code, answer.json().get("error", "")

        yield request


def is_one_sentence(text):
    return 10 < len(text) < 500 and "\n" not in text and "Traceback" not in text


@pytest.mark.parametrize(("version", "tree", "status", "said"), STARTS.values(), ids=STARTS)
def test_a_start_over_http(send, version, tree, status, said):
    body = {"command": "start", "version": version, "specification": tree}
    answered, sentence = send("/v1/rollout/command", body, "admin")
    if "Infinity" in json.dumps(tree):
        assert (answered, is_one_sentence(sentence)) == (422, True), sentence
        return
    assert answered == status, sentence
    assert said in sentence
    assert is_one_sentence(sentence)


@pytest.mark.parametrize(("version", "tree", "status", "said"), STARTS.values(), ids=STARTS)
def test_a_start_on_the_command_line(place, tmp_path, version, tree, status, said):
    file = tmp_path / "rollout.yaml"
    file.write_text(json.dumps(tree).replace("Infinity", ".inf"))
    words = ["rollout", "start", str(version), str(file), "--registry", str(place / "models")]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, UserError)
    assert said in str(result.exception)
    assert is_one_sentence(str(result.exception).replace(str(place), "").replace(str(file), ""))


@pytest.mark.parametrize(
    ("path", "body", "scope", "status", "said"),
    [
        ("/v1/outcome", {"session": "nobody", "reward": 1.0}, "act", 404, "no session 'nobody'"),
        ("/v1/outcome", '{"session": "a", "reward": 1e999}', "act", (400, 422), "reward"),
        ("/v1/outcome", '{"session": "a", "reward": NaN}', "act", (400, 422), "JSON"),
        ("/v1/outcome", {"session": "a", "rewrad": 1.0}, "act", 422, "did you mean 'reward'?"),
        ("/v1/outcome", {"session": "a", "reward": 1.0}, "read", 403, "act"),
        ("/v1/outcome", {"session": "a", "reward": 1.0}, None, 401, "token"),
        ("/v1/rollout/command", {"command": "abort"}, "act", 403, "admin"),
        ("/v1/rollout/command", {"command": "abort"}, "read", 403, "admin"),
        ("/v1/rollout/command", {"command": "abort"}, "admin", 409, "has been no rollout yet"),
        ("/v1/rollout/command", {"command": "strat"}, "admin", 422, "did you mean 'start'?"),
        ("/v1/rollout/command", {"command": "start", "versoin": 2}, "admin", 422, "an 'version'?"),
        ("/v1/rollout/command", "{", "admin", 422, "the body is invalid"),
    ],
)  # fmt: skip
def test_outcomes_and_commands_over_http(send, path, body, scope, status, said):
    answered, sentence = send(path, body, scope)
    assert answered in (status if isinstance(status, tuple) else (status,)), sentence
    assert said in sentence
    assert is_one_sentence(sentence)


def test_a_rollout_of_a_hundred_steps_is_read(send):
    shadow = {"shadow": {"weight": 100.0, "duration": "10m"}}
    tree = {"strategy": {"canary": {"steps": [*[shadow] * 98, {"setWeight": 10}, {"pause": {}}]}}}
    assert len(json.dumps(tree)) > 4096
    body = {"command": "start", "version": 9, "specification": tree}
    assert send("/v1/rollout/command", body, "admin")[0] == 404  # no such version


def test_a_second_rollout_is_refused_by_both(send, place, tmp_path):
    registry = str(place / "models")
    file = tmp_path / "rollout.yaml"
    file.write_text(json.dumps(CANARY))
    begun = CliRunner().invoke(app, ["rollout", "start", "2", str(file), "--registry", registry])
    assert begun.exit_code == 0, begun.exception
    body = {"command": "start", "version": 2, "specification": CANARY}
    status, sentence = send("/v1/rollout/command", body, "admin")
    assert status == 409
    again = CliRunner().invoke(app, ["rollout", "start", "2", "--registry", registry])
    for text in (sentence, str(again.exception)):
        assert "of version 2 is still" in text
        assert "abort it (rlcar rollout abort)" in text
        assert is_one_sentence(text)
    ended = CliRunner().invoke(app, ["rollout", "abort", "--registry", registry])
    assert ended.exit_code == 0
