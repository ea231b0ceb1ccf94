"""The environments of Gymnasium that also exist as compiled functions, one descriptor each.

A new one is a folder with its descriptor, and one line in the table below.
"""

from typing import Any

import pydantic

from rlcar.config import EnvironmentConfig
from rlcar.envs.descriptor import CompiledDescriptor
from rlcar.errors import ConfigError
from rlcar.settings.explain import explain
from rlcar.settings.section import Section
from rlcar.types import CompiledEnvironment

_ALL: tuple[CompiledDescriptor[Any], ...] = ()

COMPILED: dict[str, CompiledDescriptor[Any]] = {descriptor.id: descriptor for descriptor in _ALL}

_OF_GYMNASIUM = ("image_size_px", "time_limit_steps", "action_limit")


def compiled_settings(environment: EnvironmentConfig) -> Section:
    """Returns the validated settings of a compiled environment.

    Raises ConfigError, with the dotted name, the value and the reason, for invalid ones and for
    settings of `environment` that only other environments of Gymnasium have.
    """
    descriptor = COMPILED[environment.id]
    for name in _OF_GYMNASIUM:
        if getattr(environment, name) is not None:
            raise ConfigError(
                f"environment.{name} = {getattr(environment, name)!r} has no effect on "
                f"{descriptor.id}: leave it out; it has environment.settings of its own: "
                f"{', '.join(descriptor.settings.model_fields)}"
            )
    try:
        return descriptor.settings.model_validate(environment.settings)
    except pydantic.ValidationError as error:
        raise ConfigError(
            explain(error, descriptor.settings, prefix="environment.settings.")
        ) from error


def make_compiled(environment: EnvironmentConfig) -> CompiledEnvironment:
    """Makes the compiled environment that a config names; raises as `compiled_settings` does."""
    return COMPILED[environment.id].make(compiled_settings(environment))
