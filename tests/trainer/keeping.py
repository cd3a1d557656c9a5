"""A process that keeps its programs; started by test_programs.py.

    python keeping.py FOLDER

Prints how many programs it found kept, and a number that one of them computed.
"""

import sys

import jax
import jax.numpy as jnp

from trainer.programs import keep_programs


def main(folder: str) -> None:
    found: list[str] = []
    jax.monitoring.register_event_listener(
        lambda event, **_: found.append(event) if event == "/jax/compilation_cache/cache_hits" else None
    )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.jit(lambda x: x + 1)(1).block_until_ready()  # preflight compiles too, before there is a run folder
    keep_programs(folder)
    value = jax.jit(lambda x: jnp.sin(x).sum())(jnp.arange(4.0))
    print(len(found), float(value))


if __name__ == "__main__":
    main(sys.argv[1])
