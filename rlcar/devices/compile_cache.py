"""Keeps what JAX has compiled between processes: a second start need not compile again."""

import hashlib
import os
import platform
import sys
from pathlib import Path

from rlcar.system.durable import replacing
from rlcar.system.user_folders import cache_folder


def keep_compiled_code() -> None:
    """Names a folder for JAX's persistent cache, unless the user has; before anything is compiled.

    Below `$XDG_CACHE_HOME/rlcar/jax`, one for each kind of processor: code compiled for another,
    as on a home folder that several machines share, may not run. Where this user has no folder
    that can be written, nothing is kept: a folder in /tmp may be prepared by another user, and
    what lies in it is executed.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        caches = cache_folder()
        if caches is None:
            return
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(caches / "rlcar" / "jax" / _processor())
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    jax = sys.modules.get("jax")
    if jax is not None:  # which has read its environment
        shortest_s = float(os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"])
        jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", shortest_s)


def write_entries_whole() -> None:
    """Makes JAX write an entry of its cache beside its place and rename it; imports JAX.

    JAX writes it in place (`LRUCache.put`, 0.10): another process then reads half of it, and one
    that is killed meanwhile leaves half of it for good, for JAX replaces no entry. Under a limit
    of size (`jax_compilation_cache_max_size`) JAX locks its folder, which is left to it.
    """
    try:
        from jax._src.lru_cache import _CACHE_SUFFIX, LRUCache
    except ImportError:  # a JAX that has it elsewhere keeps its own way
        return

    in_place = LRUCache.put

    def put(self: LRUCache, key: str, value: bytes) -> None:
        if self.eviction_enabled or "://" in str(self.path):
            in_place(self, key, value)
            return
        # Not only where there is none: JAX compiles when it finds none or cannot read it.
        folder = Path(self.path)
        with replacing(folder / f"{key}{_CACHE_SUFFIX}") as temporary:
            temporary.write_bytes(value)

    LRUCache.put = put  # type: ignore[method-assign]


def _processor() -> str:
    kind = [platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for name in ("model name", "flags", "Features"):
        kind += [line for line in lines if line.startswith(name)][:1]
    return hashlib.sha256("\n".join(kind).encode()).hexdigest()[:12]
