"""Reference of presets, worlds and modes: what each changes of the defaults."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from docs._generate import markdown


def render() -> str:
    """Returns what each preset, world and mode changes, in Markdown."""
    from rlcar.config.presets import MODES, PRESETS, WORLDS

    kinds = (("Presets", PRESETS), ("Worlds", WORLDS), ("Modes", MODES))
    return "".join(_render(title, named) for title, named in kinds)


def _render(title: str, named: Mapping[str, Mapping[str, Any]]) -> str:
    text = markdown.heading(2, title)
    for name, tree in named.items():
        changes = list(_flat(tree))
        text += markdown.heading(3, markdown.code(name)) + "\n"
        if not changes:
            text += "The defaults.\n"
            continue
        rows = ((markdown.code(setting), markdown.code(value)) for setting, value in changes)
        text += markdown.table(("Setting", "Value"), rows, "presets")
    return text


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        dotted = f"{prefix}{name}"
        if isinstance(value, Mapping) and set(value) != {"low", "high"}:
            yield from _flat(value, f"{dotted}.")
        elif isinstance(value, Mapping):
            yield dotted, f"{value['low']:g} to {value['high']:g}"
        else:
            yield dotted, _value(value)


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)
