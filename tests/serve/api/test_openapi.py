"""Generated requests, valid and invalid, are answered as the OpenAPI document describes."""

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, settings

from serve.api.openapi import openapi
from serve.api.schema import RACE_INTERFACE
from serve.settings import make_settings
from tests.serve.served import publish, serving


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry") / "models"
    publish(folder, seed=1)
    default = make_settings().deadline_ms  # which the document contains
    with serving(folder, requests_per_s=1e6, deadline_ms=default) as server:
        yield f"http://127.0.0.1:{server.port}"


def test_the_served_document_is_the_one_that_is_tested(url):
    assert httpx.get(f"{url}/openapi.json").json() == openapi(RACE_INTERFACE, make_settings())


def test_ranges_stand_in_the_document():
    request = openapi(RACE_INTERFACE, make_settings())["components"]["schemas"]["ActRequest"]
    observation = request["oneOf"][0]["properties"]["observation"]
    assert observation["items"] == {"type": "number", "minimum": 0.0, "maximum": 1.0}
    assert observation["minItems"] == observation["maxItems"] == 6


schema = schemathesis.openapi.from_dict(openapi(RACE_INTERFACE, make_settings()))


_FOR_EACH = ("is_first", "reward", "terminated", "truncated", "executed")


def _has_length(value, cars):
    return (
        len(value) == cars if isinstance(value, list) else not isinstance(value, dict) or cars == 1
    )


def _any(body, *names):
    return any(body.get(name) not in (None, False, []) for name in names)


def _test_of(operation, requests):
    @schema.include(path=operation.path, method=operation.method.upper()).parametrize()
    @settings(
        max_examples=requests,
        deadline=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def every_request_is_answered_as_the_document_says(case, url):
        body = case.body if isinstance(case.body, dict) else {}
        # A schema cannot require that two lists have the same length.
        cars = body.get("observations", [None])
        if isinstance(cars, list):
            assume(all(_has_length(body.get(name), len(cars)) for name in _FOR_EACH))
        # Nor that no observation is both the first and the last one of an episode.
        assume(not (_any(body, "is_first") and _any(body, "terminated", "truncated")))
        # Nor do the rules of a rollout's file stand in it.
        assume(not isinstance(body.get("specification"), dict))
        case.call_and_validate(base_url=url)

    return every_request_is_answered_as_the_document_says


# One function for each: the tests of one function share an id, and pytest-xdist runs only one.
for one in schema.get_all_operations():
    globals()[f"test_{one.ok().label}"] = _test_of(one.ok(), 60)
    globals()[f"test_500_{one.ok().label}"] = pytest.mark.long(_test_of(one.ok(), 500))
