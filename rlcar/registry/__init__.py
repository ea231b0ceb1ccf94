"""Immutable model versions with metadata and aliases, in a folder or an object store.

Reading them needs neither JAX nor Ray.
"""

from rlcar.agents.observation_scaling import NORMALISER
from rlcar.registry.aliases import AliasRecord
from rlcar.registry.registry import Registry
from rlcar.registry.version import Model, Version

__all__ = ["NORMALISER", "AliasRecord", "Model", "Registry", "Version"]
