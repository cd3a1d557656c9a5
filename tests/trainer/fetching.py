"""One of two processes that need the same things of a hub; started by test_inputs.py.

    python fetching.py INDEX PORT FOLDER RECORD

The hub is that of HF_ENDPOINT; RECORD is what an earlier attempt left, as JSON. Prints one JSON object: what each fetch
gave, by its name.
"""

import json
import os
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
from huggingface_hub import constants
from launching import resolved

from trainer import distributed
from trainer.contract.exits import RunError
from trainer.contract.process import ProcessConfig
from trainer.data import hub as datasets
from trainer.inputs import Inputs
from trainer.model import source
from trainer.watchdog import Heartbeat


def main(index: int, port: str, folder: Path, record: dict) -> None:
    jax.config.update("jax_num_cpu_devices", 1)
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, index)
    process = ProcessConfig(resolved(Path("own/model"), Path("own/sums"), folder, 2, 1), "0123abcd", index, None, 0)

    def fetched(cache: str, recorded: dict, *, data: bool = False, shared: bool = True) -> list:
        """The commit, the folder and what is recorded; or the error."""
        constants.HF_HUB_CACHE = str(folder / cache)
        inputs = Inputs(process, recorded if index == 0 else {}, shared, Heartbeat())
        try:
            if data:
                name = datasets.name_of("data.train", "own/sums")
                pin, found = inputs.fetch(name, lambda: datasets.pin("data.train", "own/sums", "train"), "train")
            else:
                pin, found = inputs.fetch(source.name_of("own/model"), lambda: source.pin("own/model"))
        except RunError as error:
            return [int(error.code), error.message]
        return [pin.commit, str(found), inputs.record]

    result = {"apart": fetched(f"first-{index}", {})}
    result["again"] = fetched(f"second-{index}", result["apart"][2])
    result["unshared"] = fetched(f"third-{index}", record, shared=False)
    result["together"] = fetched("fourth", {}, data=True)
    gone = {"model_path": record["model_path"] | {"commit": "f" * 40}}
    result["gone"] = fetched(f"fifth-{index}", gone)
    print(json.dumps(result))
    distributed.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), json.loads(sys.argv[4]))
