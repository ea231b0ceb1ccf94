"""The search space of a sweep: a range or a choice for each dotted setting."""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pydantic
from pydantic import Field

from rlcar.errors import ConfigError
from rlcar.settings.explain import nearest
from rlcar.settings.section import Section

Value = bool | int | float | str | None
Sample = dict[str, Any]  # dotted setting -> value

# Of a larger space, only so many random corners are checked.
MOST_CORNERS = 4096


class Dimension(Section):
    """The values that one setting may take; exactly one of the four kinds is given."""

    uniform: list[float] | None = Field(None, min_length=2, max_length=2)
    """Lower and upper end of a uniform distribution."""
    loguniform: list[float] | None = Field(None, min_length=2, max_length=2)
    """Lower and upper end, both above 0, of a distribution that is uniform in the logarithm."""
    integer: list[int] | None = Field(None, min_length=2, max_length=2)
    """Lowest and highest whole number, both included."""
    choice: list[Value] | None = Field(None, min_length=1)
    """The possible values."""

    @pydantic.model_validator(mode="after")
    def _is_one_kind(self) -> "Dimension":
        if len(self.model_fields_set) != 1:
            kinds = ", ".join(sorted(self.model_fields_set)) or "none"
            raise ValueError(
                f"exactly one of uniform, loguniform, integer and choice is needed, not {kinds}"
            )
        if self.choice is None:
            low, high = self.bounds
            if not low < high:
                raise ValueError(f"{self.kind} [{low}, {high}]: the first end must be the lower")
            if self.kind == "loguniform" and low <= 0:
                raise ValueError(f"loguniform [{low}, {high}]: both ends must be above 0")
        elif len({repr(value) for value in self.choice}) != len(self.choice):
            raise ValueError(f"choice {self.choice} names a value twice")
        return self

    @property
    def kind(self) -> str:
        """Which of the four kinds is given."""
        return next(iter(self.model_fields_set))

    @property
    def bounds(self) -> list[Any]:
        """Both ends of a range."""
        given: list[Any] = getattr(self, self.kind)
        return given

    def extremes(self) -> list[Any]:
        """Returns every choice, or both ends of a range."""
        return list(self.choice) if self.choice is not None else self.bounds

    def legal(self, value: Any) -> Any:
        """Returns the value as a plain Python value, clipped to the range."""
        if self.choice is not None:
            return value
        low, high = self.bounds
        inside = min(max(value, low), high)
        return int(inside) if self.kind == "integer" else float(inside)


def corners(space: Mapping[str, Dimension]) -> Iterator[Sample]:
    """Yields all combinations of extreme values; of very many, always the same random ones.

    Each extreme value, with all others at their first one, is always included.
    """
    names = list(space)
    extremes = [space[name].extremes() for name in names]
    total = 1
    for values in extremes:
        total *= len(values)
    if total <= MOST_CORNERS:
        for point in itertools.product(*extremes):
            yield dict(zip(names, point, strict=True))
        return
    first = {name: values[0] for name, values in zip(names, extremes, strict=True)}
    for name, values in zip(names, extremes, strict=True):
        for value in values:
            yield first | {name: value}
    generator = random.Random(0)
    for _ in range(MOST_CORNERS):
        yield {name: generator.choice(values) for name, values in zip(names, extremes, strict=True)}


def nested(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the tree that dotted settings describe."""
    tree: dict[str, Any] = {}
    for dotted, value in sample.items():
        *sections, name = dotted.split(".")
        inner = tree
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = value
    return tree


def dotted_names(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yields the dotted name of each setting in a tree."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from dotted_names(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def require_known(names: Sequence[str], known: Sequence[str], algorithm: str) -> None:
    """Raises ConfigError for the first unknown setting, and suggests the most similar one.

    Of several settings with the same last part, it suggests the one of `algorithm`.
    """
    for name in names:
        if name not in known:
            last = "." + name.rpartition(".")[2]
            similar = [setting for setting in known if f".{setting}".endswith(last)]
            own = [setting for setting in similar if setting.startswith(f"{algorithm}.")]
            hint = nearest(name, own or similar or known)
            raise ConfigError(f"space: unknown setting {name!r}{hint}")
