"""What the trainer accepts: the only package that both halves import.

Standard library, pydantic and yaml only, so that a job can be judged without JAX and without a cluster.
Modules, from the top: `process` (run.json and environment to one process's identity), `run` (the resolved RunConfig),
`runner` (the user's configuration tree), `batch` (the batch rules), `models` (shapes of known hub models),
`documents` (strict YAML), `rules` (every rule's id and explanation), `violations`, `exits`, `runfolder`.
"""
