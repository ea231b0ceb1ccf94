"""The persistent compilation cache: a second process reuses what an earlier one has compiled."""

import hashlib
import os
import platform
import sys
from pathlib import Path

from rlcar.system.durable import replacing
from rlcar.system.user_folders import cache_folder

_FOLDER = "JAX_COMPILATION_CACHE_DIR"
_SHORTEST_S = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


def prepare_jax() -> None:
    """Sets up the compilation cache of this process, before its first computation; imports JAX.

    Every process that compiles calls this once: the CLI's verbs, the Ray actors and the trials of a
    sweep. Set `JAX_PLATFORMS` and other variables that JAX reads at its import before the call.
    """
    keep_compiled_code()
    write_cache_entries_atomically()


def keep_compiled_code() -> None:
    """Chooses a folder for JAX's persistent cache, unless the user has chosen one.

    The folder is `$XDG_CACHE_HOME/rlcar/jax/<processor>`. Each kind of processor has its own,
    because code compiled for another may not run, and several machines may share a home folder.
    Without a writable folder of this user nothing is cached: another user could prepare a folder
    in /tmp, and JAX executes what it finds there.

    This sets environment variables, which child processes inherit. It does not import JAX.
    """
    if _FOLDER not in os.environ:
        caches = cache_folder()
        if caches is None:
            return
        os.environ[_FOLDER] = str(caches / "rlcar" / "jax" / _processor())
    os.environ.setdefault(_SHORTEST_S, "0.5")
    jax = sys.modules.get("jax")
    if jax is not None:  # JAX reads these variables only when it is imported
        jax.config.update("jax_compilation_cache_dir", os.environ[_FOLDER])
        shortest_s = float(os.environ[_SHORTEST_S])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", shortest_s)


def write_cache_entries_atomically() -> None:
    """Makes JAX write each cache entry to a temporary file and rename it; imports JAX.

    JAX 0.10 writes an entry in place (`LRUCache.put`). Another process may then read half of it,
    and a process that is killed meanwhile leaves half of it for good, because JAX never replaces an
    entry. With a size limit (`jax_compilation_cache_max_size`) JAX locks its folder, and this
    changes nothing. A second call has no effect.
    """
    try:
        from jax._src.lru_cache import _CACHE_SUFFIX, LRUCache
    except ImportError:  # This version of JAX keeps its cache elsewhere.
        return

    put_in_place = LRUCache.put
    if put_in_place.__module__ == __name__:
        return

    def put(self: LRUCache, key: str, value: bytes) -> None:
        if self.eviction_enabled or "://" in str(self.path):
            put_in_place(self, key, value)
            return
        # Also replace an existing entry: JAX compiles again if it cannot read the entry.
        folder = Path(self.path)
        with replacing(folder / f"{key}{_CACHE_SUFFIX}") as temporary:
            temporary.write_bytes(value)

    LRUCache.put = put  # type: ignore[method-assign]


def _processor() -> str:
    """Returns a short hash of the processor's model and instruction sets."""
    facts = [platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for name in ("model name", "flags", "Features"):
        facts += [line for line in lines if line.startswith(name)][:1]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]
