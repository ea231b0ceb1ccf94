"""Adds the nearest name to the error about a misspelt field, or a misspelt word, of a request."""

import functools
import re

import msgspec
from msgspec import inspect

_MISSPELT = re.compile(
    r"(?:Object contains unknown field `(?P<field>[^`]*)`|Invalid enum value '(?P<word>[^']*)')"
    r"(?: - at `(?P<path>[^`]*)`)?"
)
_NAME = re.compile(r"\.(\w+)")
_LONGEST = 200  # characters; a search in more would take a server's time

_type_info = functools.lru_cache(16)(inspect.type_info)


def with_nearest(error: msgspec.ValidationError, struct: type[msgspec.Struct]) -> str:
    """Returns the error about a body that is no `struct`, with the name that was probably meant."""
    text = str(error)
    return text if len(text) > _LONGEST else _with_nearest(text, struct)


@functools.lru_cache(256)  # a client makes the same mistake in every request
def _with_nearest(text: str, struct: type[msgspec.Struct]) -> str:
    # Clients of the SDK also import this module, but they need no pydantic.
    from rlcar.settings.explain import nearest

    found = _MISSPELT.fullmatch(text)
    if found is None:
        return text
    kinds = _alternatives(_type_info(struct))
    for name in _NAME.findall(found["path"] or ""):
        inner = [field.type for field in _fields(kinds) if field.encode_name == name]
        kinds = [one for kind in inner for one in _alternatives(kind)]
    if found["field"] is not None:
        name, known = found["field"], [field.encode_name for field in _fields(kinds)]
    else:
        words = [one.values for one in kinds if isinstance(one, inspect.LiteralType)]
        name, known = found["word"], [str(word) for group in words for word in group]
    return f"{text}{nearest(name, known)}" if known else text


def _fields(kinds: list[inspect.Type]) -> list[inspect.Field]:
    return [field for one in kinds if isinstance(one, inspect.StructType) for field in one.fields]


def _alternatives(kind: inspect.Type) -> list[inspect.Type]:
    """Returns the types that a value or, in a list, its items may have."""
    if isinstance(kind, inspect.Metadata):
        inner: tuple[inspect.Type, ...] = (kind.type,)
    elif isinstance(kind, inspect.UnionType):
        inner = kind.types
    elif isinstance(kind, inspect.ListType):
        inner = (kind.item_type,)
    else:
        return [kind]
    return [one for part in inner for one in _alternatives(part)]
