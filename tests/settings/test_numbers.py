"""Every number of every settings model is finite and has a range: a walk over all the models."""

import importlib
import pkgutil
import typing

import pydantic
import pytest

import cluster
import rlcar
import serve
from rlcar import errors

NOT_FINITE = (float("nan"), float("inf"), float("-inf"))
HUGE = (1e308, -1e308, 10**40, -(10**40))
# These hold a value of any other setting, which has a range of its own.
OF_ANY_SETTING = {"set", "choice"}
# The ends of a range of values of any other setting.
RANGES = {"uniform", "loguniform", "integer"}
# Sums of squares of float32 numbers reach 1e77; the range of these ends at 1e100.
SQUARES = {"squares"}


def all_models():
    for package in (rlcar, cluster, serve):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    waiting, found = [pydantic.BaseModel], []
    while waiting:
        for model in waiting.pop().__subclasses__():
            waiting.append(model)
            if model.__module__.partition(".")[0] in ("rlcar", "cluster", "serve"):
                found.append(model)
    return found


def parts(annotation):
    """Every type inside an annotation."""
    yield annotation
    for inner in typing.get_args(annotation):
        yield from parts(inner)


def filled(annotation, number):
    """A value of the annotation's shape that holds the number."""
    kinds = [typing.get_origin(part) for part in parts(annotation)]
    shape = number
    if dict in kinds:
        shape = {"epsilon": number}
    if list in kinds:
        shape = [shape, shape]
    return shape


def numeric_fields():
    return [
        pytest.param(model, name, id=f"{model.__name__}.{name}")
        for model in all_models()
        for name, field in model.model_fields.items()
        if {int, float} & set(parts(field.annotation))
    ]


def refuses(model, name, value):
    try:
        model.model_validate({name: value})
    except pydantic.ValidationError as error:
        return any(one["loc"][:1] == (name,) for one in error.errors())
    except errors.UserError:
        return True
    return False


@pytest.mark.parametrize(("model", "name"), numeric_fields())
def test_every_number_of_every_model_is_finite_and_in_a_range(model, name):
    annotation = model.model_fields[name].annotation
    values = NOT_FINITE if name in OF_ANY_SETTING | RANGES else NOT_FINITE + HUGE
    if name in SQUARES:
        values = tuple(value for value in values if value != 10**40)
    accepted = [one for one in values if not refuses(model, name, filled(annotation, one))]
    assert accepted == []


def test_the_walk_finds_the_models():
    fields = [param.id for param in numeric_fields()]
    assert len(fields) > 120
    assert {"TrainingConfig.cars", "ServeSettings.deadline_ms", "Campaign.slots"} <= set(fields)
