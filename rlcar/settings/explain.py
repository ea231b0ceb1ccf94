"""Says which setting is wrong, which value it has and why, from an error of pydantic."""

import difflib
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import pydantic
from pydantic.fields import FieldInfo

_LONGEST_VALUE = 300  # characters of a value in a message


class Problem(NamedTuple):
    """One setting that was refused."""

    name: str  # dotted; empty when the rule is about several settings at once
    value: Any
    reason: str
    known_names: list[str] | None  # the settings of its section, when it is none of them

    def sentence(self) -> str:
        """Returns `name = value: reason`, or the nearest name of an unknown setting."""
        if self.known_names is not None:
            last = self.name.rpartition(".")[2]
            return f"unknown setting {self.name!r}{nearest(last, self.known_names)}"
        # A section is too long to repeat.
        value = "" if isinstance(self.value, Mapping) else f" = {_shortened(repr(self.value))}"
        return f"{self.name}{value}: {self.reason}" if self.name else self.reason


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def explain(
    error: pydantic.ValidationError, model: type[pydantic.BaseModel], prefix: str = ""
) -> str:
    """Returns everything that is wrong with the settings of a model, in one line.

    `prefix` stands before each name, for a model that is a section of a file.
    """
    found = [
        problem._replace(name=f"{prefix}{problem.name}".rstrip("."))
        for problem in problems(error, model)
    ]
    return "; ".join(problem.sentence() for problem in found)


def problems(error: pydantic.ValidationError, model: type[pydantic.BaseModel]) -> list[Problem]:
    """Lists each setting that was refused once, with all reasons."""
    found: dict[str, Problem] = {}
    for detail in error.errors(include_url=False):
        name, section = _name_and_section(detail["loc"], model)
        known_names, value = None, detail["input"]
        reason = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "extra_forbidden" and section is not None:
            known_names = [field.alias or key for key, field in section.model_fields.items()]
        elif detail["type"] == "missing":
            reason, value = "missing", {}
        if name in found:  # one reason from each member of a union
            reason = f"{found[name].reason}, or: {reason}"
        found[name] = Problem(name, value, reason, known_names)
    return list(found.values())


def nearest(name: str, known: Sequence[str]) -> str:
    """Returns `; did you mean 'x'?`, or the list of what there is when nothing is near."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; there are: {', '.join(sorted(known))}"


def _name_and_section(
    location: Sequence[int | str], model: type[pydantic.BaseModel]
) -> tuple[str, type[pydantic.BaseModel] | None]:
    """Returns a setting's dotted name, and the model that its last part belongs to.

    Pydantic's location also names the member of a union that it tried, and marks the key of a
    mapping; neither is a part of the name.
    """
    names: list[str] = []
    annotation: Any = model
    section: type[pydantic.BaseModel] | None = None
    for part in location:
        while get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        if get_origin(annotation) in (Union, UnionType):
            members = [kind for kind in get_args(annotation) if kind is not type(None)]
            if len(members) > 1:
                annotation = next((kind for kind in members if _is_tagged(kind, part)), None)
                continue
            annotation = members[0]
        if part == "[key]":
            continue
        names.append(str(part))
        section = None
        if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
            section = annotation
            field = _field_of(annotation, str(part))
            annotation = None if field is None else field.annotation
        elif get_args(annotation):  # of a list or a mapping
            annotation = get_args(annotation)[-1]
        else:
            annotation = None
    return ".".join(names), section


def _field_of(model: type[pydantic.BaseModel], key: str) -> FieldInfo | None:
    """Returns the field that a file calls `key`: by its alias, if it has one."""
    fields = model.model_fields.items()
    return next((field for name, field in fields if (field.alias or name) == key), None)


def _is_tagged(kind: Any, tag: int | str) -> bool:
    """Whether pydantic calls a member of a union so: by its class or by its field `type`."""
    if not (isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)):
        return False
    field = kind.model_fields.get("type")
    return kind.__name__ == tag or (field is not None and field.annotation == Literal[tag])
