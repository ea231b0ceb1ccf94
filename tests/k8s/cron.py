"""The five fields of a cron line, as CronJob and RayCronJob accept them."""

import re

_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 6))
_NAMES = {
    "month": ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    "weekday": ["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
}
_SHORTHANDS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_PART = re.compile(r"(\*|\?|\w+)(?:-(\w+))?(?:/(\d+))?")


def cron_problem(line: str) -> str | None:
    """Says what is wrong in a cron line; None for a valid one."""
    if line in _SHORTHANDS:
        return None
    fields = line.split()
    if len(fields) != len(_FIELDS):
        return f"{line!r} has {len(fields)} fields in place of 5"
    for text, (name, least, most) in zip(fields, _FIELDS, strict=True):
        for part in text.split(","):
            if not _is_valid(part, name, least, most):
                return f"{line!r}: {part!r} is no {name}"
    return None


def _is_valid(part: str, name: str, least: int, most: int) -> bool:
    match = _PART.fullmatch(part)
    if match is None or match[3] == "0":
        return False
    if match[1] in "*?":
        return match[2] is None
    first = _number(match[1], name, least)
    last = first if match[2] is None else _number(match[2], name, least)
    return first is not None and last is not None and least <= first <= last <= most


def _number(text: str, name: str, least: int) -> int | None:
    if text.isdecimal():
        return int(text)
    names = _NAMES.get(name, [])
    return least + names.index(text.lower()) if text.lower() in names else None
