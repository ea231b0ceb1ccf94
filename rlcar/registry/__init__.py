"""Immutable model versions with metadata and aliases, in a folder or an object store.

Reading them needs neither JAX nor Ray.
"""

from rlcar.registry.registry import MODELS, AliasRecord, Registry
from rlcar.registry.version import NORMALISER, Model, Version

__all__ = ["MODELS", "NORMALISER", "AliasRecord", "Model", "Registry", "Version"]
