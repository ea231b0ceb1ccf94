"""Old module names in the stored state of sweeps.

Ray Tune pickles the state of a sweep, and a pickle refers to our functions by module and name.
Sweeps from before the package was divided into folders refer to modules that have moved since.
"""

import contextlib
import importlib
import sys
from collections.abc import Iterator

# old module -> new module; the only reference is to `_trial_name`
_MOVED = {"cluster.sweep": "cluster.sweeps.sweep"}


@contextlib.contextmanager
def old_module_names() -> Iterator[None]:
    """Makes moved modules importable by their old names, while a sweep is being restored."""
    sys.modules.update({old: importlib.import_module(new) for old, new in _MOVED.items()})
    try:
        yield
    finally:
        for old in _MOVED:
            del sys.modules[old]
