"""Reference of the command line: every verb with its arguments and options."""

import typing
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import typer.main

from docs._generate import markdown


class Option(NamedTuple):
    """One argument or option of a verb."""

    names: tuple[str, ...]  # what is typed; of an argument, its name in capitals
    value: str  # what follows it; empty for a switch
    default: str
    variable: str  # the environment variable that sets it too
    meaning: str
    is_argument: bool


class Verb(NamedTuple):
    """One command."""

    name: str  # with those above it: `rlcar models publish`
    meaning: str
    options: list[Option]


def verbs() -> list[Verb]:
    """Returns every command in the order of `rlcar --help`."""
    from rlcar.cli import app

    return list(_verbs(typer.main.get_command(app), "rlcar"))


def render() -> str:
    """Returns every verb in Markdown, with a table of its options."""
    return "".join(_render(verb) for verb in verbs())


def _verbs(command: Any, name: str) -> Iterator[Verb]:
    inner = getattr(command, "commands", None)
    if inner is None:
        options = [_option(parameter) for parameter in command.params if not _is_help(parameter)]
        yield Verb(name, " ".join((command.help or "").split("\f")[0].split()), options)
    for key, value in (inner or {}).items():
        if not value.hidden:
            yield from _verbs(value, f"{name} {key}")


def _is_help(parameter: Any) -> bool:
    return parameter.name == "help" or getattr(parameter, "hidden", False)


def _option(parameter: Any) -> Option:
    is_argument = parameter.param_type_name == "argument"
    names = (parameter.name.upper(),) if is_argument else tuple(_names(parameter))
    variables = parameter.envvar if isinstance(parameter.envvar, str) else ""
    is_switch = getattr(parameter, "is_flag", False)
    value = "" if is_switch or is_argument else _value(parameter)
    return Option(
        names,
        value,
        _default(parameter),
        variables,
        getattr(parameter, "help", None) or "",
        is_argument,
    )


def _names(parameter: Any) -> Sequence[str]:
    return [*parameter.opts, *parameter.secondary_opts]


def _value(parameter: Any) -> str:
    if parameter.metavar:
        return str(parameter.metavar)
    kinds = {str: "TEXT", int: "INTEGER", float: "NUMBER", Path: "PATH"}
    annotation = parameter.type_descriptor.annotation
    kind = next((one for one in (*typing.get_args(annotation), annotation) if one in kinds), str)
    return f"{kinds[kind]} …" if parameter.multiple else kinds[kind]


def _default(parameter: Any) -> str:
    value = parameter.default
    if callable(value) or value in (None, (), [], False) or "UNSET" in repr(value):
        return "required" if parameter.required else ""
    if value is True:
        return "on"
    if isinstance(value, Path | Enum):
        return str(value)
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _render(verb: Verb) -> str:
    anchor = verb.name.replace(" ", "-")
    text = f"\n({anchor})=\n" + markdown.heading(2, markdown.code(verb.name))
    text += f"\n{markdown.escape(verb.meaning)}\n\n```text\n{_usage(verb)}\n```\n\n"
    if not verb.options:
        return text
    return text + "".join(_entry(option) for option in verb.options)


def _entry(option: Option) -> str:
    typed = ", ".join(markdown.code(f"{name} {option.value}".strip()) for name in option.names)
    default = option.default
    if default not in ("", "required"):
        default = f"default {markdown.code(default)}"
    variable = f"environment variable {markdown.code(option.variable)}" if option.variable else ""
    return markdown.entry(typed, markdown.escape(option.meaning), (default, variable))


def _usage(verb: Verb) -> str:
    words = [verb.name]
    if any(not option.is_argument for option in verb.options):
        words.append("[OPTIONS]")
    for option in verb.options:
        if option.is_argument:
            name = option.names[0]
            words.append(name if option.default == "required" else f"[{name}]")
    return " ".join(words)
