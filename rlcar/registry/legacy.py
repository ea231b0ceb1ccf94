"""Reads pickled policies of the first product, in a child process without any rights.

The file is a pickled dictionary with the entries

    params     {module: {"w": array, "b": array}}, with at least the modules
               encoder/~/linear_0 and _1, actor/~/linear_0, _1 and _2 of the documented networks
    metadata   optional: {text: text, number, bool or None}

Other entries of plain values and arrays are ignored. Arrays are NumPy's or JAX's, float32 or
float64.
"""

import json
from typing import Any

import numpy as np

from rlcar.agents import LEGACY_ALGORITHM
from rlcar.config import make_config
from rlcar.config.schema import schema_of_race
from rlcar.errors import ConfigError, RegistryError
from rlcar.registry.model_file import Arrays, parse_json, parse_model
from rlcar.registry.pickled import through_child

MAX_PICKLE_BYTES = 1 << 26
_MEMORY_BYTES = 1 << 29  # of the child process
_LAYERS = ("encoder/~/linear_0", "encoder/~/linear_1", *(f"actor/~/linear_{i}" for i in range(3)))


def read_pickle(data: bytes, name: str) -> tuple[Arrays, dict[str, Any]]:
    """Returns arrays and metadata of a pickled policy, called `name` in messages.

    Nothing in the pickle is executed. A child process without files or network, and with little
    memory and time, builds only arrays and plain values, and returns them as safetensors. Raises
    RegistryError.
    """
    arrays, about = parse_model(through_child(data, name, "policy", _MEMORY_BYTES), name)
    try:
        extra = parse_json(about["metadata"].encode(), "its metadata")
    except ValueError as error:
        raise RegistryError(f"{name}: {error}") from None
    for module in _LAYERS:
        for part, rank in (("w", 2), ("b", 1)):
            array = arrays.get(f"{module}.{part}")
            if array is None or array.ndim != rank:
                raise RegistryError(
                    f"{name} is not a policy of the documented networks: it has no {module}.{part}"
                )
    try:
        return _kept(arrays, name), _metadata(arrays, extra)
    except ConfigError as error:
        raise RegistryError(f"{name} is not a policy of the documented networks: {error}") from None


def _kept(arrays: Arrays, name: str) -> Arrays:
    """Returns the policy's arrays under our names; the registry checks their shapes."""
    with np.errstate(over="ignore"):
        kept = {
            f"networks.{module}.{part}": arrays[f"{module}.{part}"].astype(np.float32)
            for module in _LAYERS
            for part in ("w", "b")
        }
    if not all(np.isfinite(array).all() for array in kept.values()):
        raise RegistryError(f"{name} has numbers too large for float32")
    return {**kept, "exploration_probability": np.full((), 0.1, np.float32)}


def _metadata(arrays: Arrays, extra: dict[str, Any]) -> dict[str, Any]:
    hidden, latent = arrays[_LAYERS[1] + ".w"].shape
    sizes = {"hidden_units": hidden, "latent_units": latent}
    overrides = [f"{LEGACY_ALGORITHM}.{name}={size}" for name, size in sizes.items()]
    config = make_config(algorithm=LEGACY_ALGORITHM, overrides=overrides)
    observation, action = schema_of_race(config)
    unknown = ("run", "checkpoint", "env_steps", "train_steps", "seed", "commit", "trained")
    known = "; ".join(f"{key} {value}" for key, value in extra.items())
    return {
        "description": known[:1000],
        "algorithm": config.algorithm,
        "config": json.loads(config.model_dump_json()),
        "observation": observation,
        "action": action,
        "normaliser": None,
        "laps": None,
        "lineage": {**dict.fromkeys((*unknown, "versions", "cost")), "parent": None},
    }
