"""Imports every module of the three packages and prints what that changed in the process.

This is a program of its own (see `tests/test_imports.py`): only a fresh process shows the changes.
"""

import ast
import importlib
import importlib.util
import logging
import os
import random
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("rlcar", "cluster", "serve")
# Level, handlers, disabled and filters of a logger that nobody has configured.
UNTOUCHED_LOGGER = (logging.NOTSET, [], False, [])


def module_names() -> list[str]:
    """Returns the names of our modules, without `__main__` modules, which are programs."""
    names = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if parts[-1] != "__main__":
                names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def third_party_names(modules: list[str]) -> set[str]:
    """Returns the names of foreign modules that our sources import, also inside functions."""
    found = set()
    for name in modules:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        for node in ast.walk(ast.parse(Path(spec.origin).read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.partition(".")[0] not in PACKAGES}


def import_if_it_is_a_module(name: str) -> None:
    """Imports a foreign module; ignores names that are no modules or are not installed."""
    try:
        importlib.import_module(name)
    except ImportError:
        return


def state() -> dict[str, Any]:
    """Returns everything that an import must not change, by name."""
    import jax
    import numpy as np

    values = {f"jax.config.{name}": value for name, value in jax.config.values.items()}
    values |= {f"os.environ.{name}": value for name, value in os.environ.items()}
    for number in signal.valid_signals():
        values[f"signal {number}"] = repr(signal.getsignal(number))
    root = logging.getLogger()
    loggers = [root, *(logging.getLogger(name) for name in list(root.manager.loggerDict))]
    for logger in loggers:
        settings = (logger.level, list(logger.handlers), logger.disabled, logger.filters)
        if settings != UNTOUCHED_LOGGER:
            values[f"logger {logger.name}"] = repr(settings)
    values["random"] = hash(random.getstate())
    values["numpy.random"] = repr(np.random.get_state())  # noqa: NPY002
    values["threads"] = sorted(thread.name for thread in threading.enumerate())
    values["sys.excepthook"] = repr(sys.excepthook)
    values["sys.path"] = list(sys.path)
    values["current folder"] = os.getcwd()
    return values


def functions_of_ours() -> Iterator[str]:
    """Yields attributes of foreign modules and classes that hold a function of our sources."""
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        if not isinstance(module, ModuleType) or top in (*PACKAGES, "__main__"):
            continue
        for attribute, value in list(vars(module).items()):
            if _is_ours(value):
                yield f"{name}.{attribute}"
            elif (
                isinstance(value, type) and str(value.__module__).partition(".")[0] not in PACKAGES
            ):
                for member, inner in list(vars(value).items()):
                    if _is_ours(inner):
                        yield f"{name}.{attribute}.{member}"


def _is_ours(value: Any) -> bool:
    function = value.__func__ if isinstance(value, staticmethod | classmethod) else value
    if not isinstance(function, FunctionType):
        return False
    source = function.__code__.co_filename
    return any(source.startswith(f"{ROOT}/{package}/") for package in PACKAGES)


def report(line: str) -> None:
    """Writes one line to stdout."""
    sys.stdout.write(f"{line}\n")


def main() -> None:
    """Prints one line for each change: the module that was being imported, and what changed."""
    modules = module_names()
    for name in sorted(third_party_names(modules)):
        import_if_it_is_a_module(name)
    before = state()
    for module in modules:
        if module in sys.modules:
            continue  # a module before it has imported it, and is named for what it changed
        importlib.import_module(module)
        after = state()
        for name in before.keys() | after.keys():
            old, new = before.get(name, "absent"), after.get(name, "absent")
            if old != new:
                report(f"{module}: {name} was {str(old)[:200]}, is {str(new)[:200]}")
        before = after
    for attribute in functions_of_ours():
        report(f"{attribute} is a function of ours")
    report(f"imported {len(modules)} modules")


if __name__ == "__main__":
    main()
