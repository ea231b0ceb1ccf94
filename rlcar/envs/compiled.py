"""The environments of Gymnasium that also exist as compiled functions, one descriptor each.

A new one is a folder with its descriptor, and one line in the table below.
"""

from typing import Any

import pydantic

from rlcar.config import EnvironmentConfig
from rlcar.envs.descriptor import CompiledDescriptor
from rlcar.envs.lander.descriptor import LANDER
from rlcar.errors import ConfigError
from rlcar.settings.explain import explain
from rlcar.settings.section import Section
from rlcar.types import CompiledEnvironment

_ALL: tuple[CompiledDescriptor[Any], ...] = (LANDER,)

COMPILED: dict[str, CompiledDescriptor[Any]] = {descriptor.id: descriptor for descriptor in _ALL}


def compiled_settings(environment: EnvironmentConfig) -> Section:
    """Returns the validated settings of a compiled environment.

    `environment.time_limit_steps` counts as the setting of this name, unless that is given too.
    Raises ConfigError, with the dotted name, the value and the reason, for invalid settings.
    """
    descriptor = COMPILED[environment.id]
    given = dict(environment.settings)
    limit = environment.time_limit_steps
    if limit is not None and has_own_time_limit(environment.id):
        given.setdefault("time_limit_steps", limit)
    try:
        return descriptor.settings.model_validate(given)
    except pydantic.ValidationError as error:
        raise ConfigError(
            explain(error, descriptor.settings, prefix="environment.settings.")
        ) from error


def has_own_time_limit(environment_id: str) -> bool:
    """Returns whether the environment ends its episodes itself, and says so as their reason."""
    descriptor = COMPILED.get(environment_id)
    return descriptor is not None and "time_limit_steps" in descriptor.settings.model_fields


def make_compiled(environment: EnvironmentConfig) -> CompiledEnvironment:
    """Makes the compiled environment that a config names; raises as `compiled_settings` does."""
    return COMPILED[environment.id].make(compiled_settings(environment))
