"""Keeps what JAX has compiled between processes: a second start need not compile again."""

import hashlib
import os
import platform
import sys
from pathlib import Path


def keep_compiled_code() -> None:
    """Names a folder for JAX's persistent cache, unless the user has; before anything is compiled.

    Below `$XDG_CACHE_HOME/rlcar/jax`, one for each kind of processor: code compiled for another,
    as on a home folder that several machines share, may not run.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "rlcar" / "jax" / _processor()
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    jax = sys.modules.get("jax")
    if jax is not None:  # which has read its environment
        shortest_s = float(os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"])
        jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", shortest_s)


def _processor() -> str:
    kind = [platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for name in ("model name", "flags", "Features"):
        kind += [line for line in lines if line.startswith(name)][:1]
    return hashlib.sha256("\n".join(kind).encode()).hexdigest()[:12]
