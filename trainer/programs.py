"""Compiled programs, kept for the next attempt of a run, which then begins without compiling them again.

In: the run's folder for them. It refuses to know the programs; JAX names each by all that it depends on, process 0
writes it for all, and one that cannot be read is compiled again.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import jax
from jax._src import cache_key
from jax.experimental.compilation_cache import compilation_cache

_MAKING = ("/jax/core/compile/jaxpr_to_mlir_module_duration", "/jax/core/compile/backend_compile_duration")
_CPU_DESCRIPTION = Path("/proc/cpuinfo")


def keep_programs(folder: str) -> None:
    """Keep programs that took a second to compile in `folder`, unless `JAX_COMPILATION_CACHE_DIR` names another."""
    instructions = cpu_instructions() if jax.default_backend() == "cpu" else None
    if instructions is not None:
        _name_for_all_processes(instructions)
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    if jax.default_backend() == "cpu":
        if instructions is None or "://" in folder:
            return
        folder = f"{folder}/cpu-{instructions}"
    jax.config.update("jax_compilation_cache_dir", folder)
    # JAX looks once whether programs are kept, at its first program, and there have been some.
    compilation_cache.reset_cache()


class CompileClock:
    """Seconds that this process has spent on making programs, or reading kept ones, since the clock was made.

    JAX compiles while the program is first called: the time is a part of whatever phase that was.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._add)

    def _add(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event in _MAKING:
            self.seconds += duration_secs


def _name_for_all_processes(instructions: str) -> None:
    """On CPU the name that JAX 0.10.2 gives a program holds which process asks, and only process 0 would find any.

    Its place is taken by the processes among which the devices are divided, and by what this CPU can execute. There is
    no public way to say so: with a version of JAX that does it elsewhere, the others compile again.
    """

    def describe(hash_obj: Any, accelerators: Any) -> None:
        places = [(device.device_kind, device.process_index) for device in accelerators.flat]
        hash_obj.update(f"{instructions} {places}".encode())

    if hasattr(cache_key, "_hash_accelerator_config"):
        cache_key._hash_accelerator_config = describe


def cpu_instructions() -> str | None:
    """A name for what this CPU can execute: a program made for another one may not run here. None: not known."""
    if not _CPU_DESCRIPTION.exists():
        return None
    flags = [line for line in _CPU_DESCRIPTION.read_text().splitlines() if line.startswith(("flags", "Features"))]
    return hashlib.sha256(flags[0].encode()).hexdigest()[:8] if flags else None
