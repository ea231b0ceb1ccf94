"""Reference of settings: every field of a pydantic model, by its dotted name."""

import ast
import functools
import inspect
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import annotated_types
import pydantic
from pydantic.fields import FieldInfo

from docs._generate import markdown

Model = type[pydantic.BaseModel]

# The longest suffix that fits a name says its unit.
_UNITS = {
    "_px_per_step2": "px/env step²",
    "_px_per_step": "px/env step",
    "_per_insert": "env steps per env step",
    "_per_min": "1/min",
    "_per_s": "1/s",
    "_env_steps": "env steps",
    "_updates": "train steps",
    "_steps": "env steps",
    "_length": "env steps",
    "_horizon": "env steps",
    "_bytes": "bytes",
    "_laps": "laps",
    "_nats": "nats",
    "_min": "min",
    "_ms": "ms",
    "_px": "px",
    "_s": "s",
    "_cpus": "cores",
    "_gpus": "GPUs",
    "env_steps": "env steps",
    "cpus": "cores",
    "gpus": "GPUs",
    "hours": "h",
}
_TYPES = {
    bool: "true or false",
    int: "integer",
    float: "number",
    str: "text",
    Path: "path",
    type(None): "null",
}


class Setting(NamedTuple):
    """One row of a reference table."""

    name: str  # dotted
    type: str
    range: str
    default: str
    unit: str
    meaning: str


class Group(NamedTuple):
    """A model and its settings; nested models are groups of their own."""

    name: str  # dotted; empty for the whole
    meaning: str
    settings: list[Setting]


def groups(model: Model, name: str = "") -> Iterator[Group]:
    """Yields a model's own settings, then those of the models in it."""
    settings, inner = [], []
    for field, info in model.model_fields.items():
        dotted = f"{name}.{field}" if name else field
        section = _section(info.annotation)
        if section is not None:
            inner.append((section, dotted))
        if section is None or info.is_required() or info.get_default() is None:
            settings.append(_setting(model, field, info, dotted))
    yield Group(name, markdown.paragraph(inspect.getdoc(model) or ""), settings)
    for section, dotted in inner:
        yield from groups(section, dotted)


def render(
    model: Model, name: str = "", *, page: str = "", without: Sequence[str] = (), level: int = 2
) -> str:
    """Returns the tables of a model in Markdown; `without` leaves out groups by dotted name.

    `page` begins the anchors: names must differ within the whole site.
    """
    text = ""
    for group in groups(model, name):
        if any(group.name == left or group.name.startswith(f"{left}.") for left in without):
            continue
        if not group.settings:
            continue
        if group.name:
            text += markdown.heading(level, markdown.code(group.name))
            text += f"\n{group.meaning}\n\n"
        text += "".join(_entry(setting, page) for setting in group.settings)
    return text


def _entry(setting: Setting, page: str) -> str:
    default = f"default {markdown.code(setting.default)}" if setting.default else "required"
    value = f"{setting.type}{', ' + setting.range if setting.range else ''}"
    name = markdown.anchored(setting.name, anchor(setting.name, page))
    unit = f"unit: {setting.unit}" if setting.unit else ""
    return markdown.entry(name, setting.meaning, (default, value, unit))


def anchor(name: str, page: str = "") -> str:
    """Returns the anchor of a setting: that of `training.env_steps` is `training-env_steps`."""
    plain = re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")
    return f"{page}-{plain}" if page else plain


def _setting(model: Model, field: str, info: FieldInfo, dotted: str) -> Setting:
    kind, limits = _describe(info.annotation, info.metadata)
    return Setting(
        dotted, kind, limits, _default(info), unit_of(field), meaning_of(model, field, info)
    )


def unit_of(name: str) -> str:
    """Returns the unit that the end of a name says, or nothing."""
    fitting = [suffix for suffix in _UNITS if name == suffix or name.endswith(suffix)]
    return _UNITS[max(fitting, key=len)] if fitting else ""


def meaning_of(model: Model, field: str, info: FieldInfo) -> str:
    """Returns the description of a field: its own, or the docstring below it in the source."""
    if info.description:
        return info.description
    for base in model.__mro__:
        text = _attribute_docstrings(base).get(field)
        if text:
            return text
    section = _section(info.annotation)
    return markdown.paragraph(inspect.getdoc(section) or "") if section is not None else ""


@functools.cache
def _attribute_docstrings(model: type) -> Mapping[str, str]:
    if model.__module__.partition(".")[0] not in ("rlcar", "cluster", "serve"):
        return {}
    try:
        source = inspect.getsource(model)
    except OSError:  # pydantic has created it; its fields have descriptions of their own
        return {}
    tree = ast.parse(inspect.cleandoc("\n" + source))
    body = typing.cast(ast.ClassDef, tree.body[0]).body
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in zip(body, body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def _section(annotation: Any) -> Model | None:
    """Returns the model that an annotation names, alone or beside null."""
    kinds = [kind for kind in _alternatives(annotation) if kind is not type(None)]
    models = [kind for kind in kinds if _is_model(kind)]
    return models[0] if len(kinds) == len(models) == 1 and not _is_range(models[0]) else None


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def _is_range(kind: Any) -> bool:
    return _is_model(kind) and list(kind.model_fields) == ["low", "high"]


def _alternatives(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return list(typing.get_args(annotation))
    return [annotation]


def _describe(annotation: Any, metadata: Sequence[Any]) -> tuple[str, str]:
    """Returns type and range in words."""
    names, limits = [], list(metadata)
    for kind in _alternatives(annotation):
        if typing.get_origin(kind) is typing.Annotated:
            kind, *more = typing.get_args(kind)
            for one in more:
                limits += one.metadata if isinstance(one, FieldInfo) else [one]
        names.append(_name(kind))
    return " or ".join(dict.fromkeys(names)), _range(limits)


def _name(kind: Any) -> str:
    arguments = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return _describe(kind, ())[0]
    if origin in (typing.Union, types.UnionType):
        return _describe(kind, ())[0]
    if origin is typing.Literal:
        return ", ".join(markdown.code(_json(one)) for one in arguments)
    if origin in (list, tuple):
        return f"list of {_plural(arguments[0])}"
    if origin is dict:
        return f"mapping of names to {_plural(arguments[1])}"
    if _is_range(kind):
        return "`low` and `high`, two numbers"
    if _is_model(kind):
        return "section"
    return _TYPES.get(kind) or str(getattr(kind, "__name__", kind))


def _plural(kind: Any) -> str:
    name = _name(kind)
    plurals = {"text": "texts", "integer": "integers", "number": "numbers", "section": "sections"}
    return plurals.get(name, "values")


def _range(metadata: Sequence[Any]) -> str:
    low = high = pattern = ""
    for one in metadata:
        if isinstance(one, annotated_types.Ge):
            low = _number(one.ge)
        elif isinstance(one, annotated_types.Gt):
            low = f"above {_number(one.gt)}"
        elif isinstance(one, annotated_types.Le):
            high = f"to {_number(one.le)}"
        elif isinstance(one, annotated_types.Lt):
            high = f"to below {_number(one.lt)}"
        elif getattr(one, "pattern", None):
            pattern = "letters, digits, `_`, `.` and `-`"
    return " ".join(part for part in (low, high, pattern) if part)


def _number(value: Any) -> str:
    if isinstance(value, int) and value >= 2**31 and value & (value - 1) == 0:
        return f"2^{value.bit_length() - 1}"
    if value == int(value) and value < 10**7:
        return f"{int(value):,}"
    return f"{float(value):g}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return ""
    value = info.get_default(call_default_factory=True)
    if _is_range(type(value)):
        return f"{value.low:g} to {value.high:g}"
    if isinstance(value, pydantic.BaseModel):
        return _json(value.model_dump(exclude_defaults=True) or type(value).__name__)
    return _json(value)


def _json(value: Any) -> str:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, Enum | Path):
        return str(value)
    return json.dumps(value, default=str)
