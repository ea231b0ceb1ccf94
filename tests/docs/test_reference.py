"""Whatever a user can set, call or watch is in the generated reference, with a meaning."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.config import ClusterConfig
from cluster.sweeps.config import AshaScheduler, NoScheduler, PbtScheduler, SweepConfig
from cluster.sweeps.search_space import Dimension
from docs._generate import commands, metrics, pages, routes, settings
from docs._generate.docstrings import comment_of, convert
from rlcar.campaigns.config import Campaign, Job
from rlcar.config import Config
from rlcar.runs.metric_table import METRICS
from rlcar.system.environment_variables import VARIABLES
from rlcar.training.curriculum.settings import Base, Curriculum, Stage
from serve.guard.access import ROUTES
from serve.settings import ServeSettings

ROOT = Path(__file__).parents[2]
MODELS = (
    *(Config, ClusterConfig, ServeSettings, SweepConfig, Campaign, Job, Dimension),
    *(NoScheduler, AshaScheduler, PbtScheduler),
    *(Curriculum, Base, Stage),
)
# Texts that look like the name of an environment variable, and are none.
NO_VARIABLES = {
    *("SC_CLK_TCK", "SC_PAGE_SIZE", "SC_PHYS_PAGES"),  # of os.sysconf
    *("RESOURCE_EXHAUSTED", "ACCESS_DENIED", "INVALID_ACCESS", "NO_SUCH_BUCKET"),  # errors
    "RESOURCE_DOES_NOT_EXIST",  # of MLflow
    *("CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER"),  # errors of TLS
}
_LIKE_A_VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Za-z0-9]+)+")


def is_a_sentence(text: str) -> bool:
    return len(text.split()) >= 3 and text.rstrip()[-1] in ".)]"


def undescribed(named: Iterator[tuple[str, str]]) -> list[str]:
    return [f"{name}: {meaning!r}" for name, meaning in named if not is_a_sentence(meaning)]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_setting_has_a_meaning(model):
    found = [setting for group in settings.groups(model) for setting in group.settings]
    assert found
    assert undescribed((setting.name, setting.meaning) for setting in found) == []


def test_every_setting_is_on_a_page():
    for name in ("training-settings", "race-settings"):
        assert f"<!-- generated: {name} -->" in _source(name)
    text = pages.training_settings() + pages.race_settings()
    names = [setting.name for group in settings.groups(Config) for setting in group.settings]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_a_setting_shows_its_type_range_default_unit_and_meaning():
    groups = {group.name: group for group in settings.groups(Config)}
    found = {setting.name: setting for setting in groups["replay"].settings}
    capacity = found["replay.capacity_env_steps"]
    assert capacity.type == "integer"
    assert capacity.range == "1 to 1e12"
    assert (capacity.default, capacity.unit) == ("500000", "env steps")
    assert capacity.meaning.startswith("Number of env steps")


def test_every_command_argument_and_option_has_a_meaning():
    found = commands.verbs()
    assert len(found) > 30
    assert undescribed((verb.name, verb.meaning) for verb in found) == []
    options = [(f"{verb.name} {one.names}", one.meaning) for verb in found for one in verb.options]
    assert [name for name, meaning in options if not meaning] == []


def test_every_route_has_a_meaning():
    assert undescribed((path, access.meaning) for path, access in ROUTES.items()) == []
    assert {one.path for one in routes.routes()} == set(ROUTES)


def test_every_field_of_the_act_route_has_a_meaning():
    for name in ("ActRequest", "ActAnswer"):
        found = routes.fields(name)
        assert len(found) > 5
        assert [field for field, schema in found if not schema.get("description")] == []


def test_every_route_of_the_openapi_document_is_in_the_table_of_routes():
    assert routes.document()["paths"].keys() <= ROUTES.keys()


def test_every_metric_has_a_meaning():
    exported = (
        *(*metrics.exported_metrics(), *metrics.observed_metrics()),
        *(*metrics.server_metrics(), *metrics.live_metrics()),
    )
    assert len({one.name for one in exported}) == len(exported)
    assert undescribed((name, metric.meaning) for name, metric in METRICS.items()) == []
    assert undescribed((one.name, one.meaning) for one in exported) == []


def test_every_metric_that_a_source_names_is_in_the_table():
    like_a_metric = re.compile(
        r"(episode|rollout|evaluation|learner|optimizer|replay|model|actor|critic|cluster|storage|run)"
        r"/[a-z_0-9]+"
    )
    named = {
        text
        for file in _sources()
        for text in _texts(ast.parse(file.read_text()))
        if like_a_metric.fullmatch(text)
    }
    assert sorted(named - METRICS.keys()) == []
    assert len(named) > 40


def test_every_environment_variable_has_a_meaning():
    assert len({one.name for one in VARIABLES}) == len(VARIABLES)
    assert undescribed((one.name, one.meaning) for one in VARIABLES) == []


def test_every_environment_variable_that_a_source_names_is_in_the_table():
    known = {one.name for one in VARIABLES}
    found = {}
    for file in _sources():
        for name in _variables(ast.parse(file.read_text())):
            found.setdefault(name, file.relative_to(ROOT))
    ends = {name.removeprefix("RAY_SERVE_HAPROXY_") for name in known}  # put together there
    unknown = found.keys() - known - ends - NO_VARIABLES
    assert {name: str(found[name]) for name in unknown} == {}
    assert {"RLCAR_REGISTRY", "RLCAR_LOG_FORMAT", "RAY_TMPDIR", "TMPDIR"} <= found.keys()


def test_each_generated_part_stands_in_a_page():
    written = {
        name
        for page in (ROOT / "docs").rglob("*.md")
        if "_build" not in page.parts
        for name in pages.MARKER.findall(page.read_text())
    }
    assert written == set(pages.GENERATED)


def test_docstrings_keep_code_and_tables():
    text = ["Returns `[T, N]` of *_to_90.", "", "name   unit", "speed  m/s"]
    assert convert(text) == [
        *("Returns ``[T, N]`` of \\*\\_to\\_90.", ""),
        *("::", "", "    name   unit", "    speed  m/s", ""),
    ]


def test_a_field_of_a_named_tuple_has_the_comment_beside_it():
    assert comment_of("rlcar.types.TimeStep.reward").startswith("[N] float32")


def _source(name: str) -> str:
    return (ROOT / "docs" / "reference" / f"{name}.md").read_text()


def _sources() -> list[Path]:
    return [
        file
        for package in ("rlcar", "cluster", "serve")
        for file in (ROOT / package).rglob("*.py")
        if file.name != "environment_variables.py"
    ]


def _texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _variables(tree: ast.Module) -> Iterator[str]:
    """Yields texts that look like variables, and whatever is asked of an environment."""
    exported = {
        id(text)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
        for text in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if _LIKE_A_VARIABLE.fullmatch(node.value) and id(node) not in exported:
                yield node.value
        elif isinstance(node, ast.Subscript) and _is_environment(node.value):
            yield from _texts(node.slice)
        elif _is_environment_call(node):
            yield from _texts(node.args[0])


def _is_environment_call(node: ast.AST) -> bool:
    """Whether it is `os.environ.get(…)` or alike."""
    is_method = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    return is_method and bool(node.args) and _is_environment(node.func.value)


def _is_environment(node: ast.expr) -> bool:
    text = ast.unparse(node)
    return text in ("os.environ", "environment") or "os.environ if" in text
