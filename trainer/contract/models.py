"""Shapes of well-known hub models, so that a job can be judged before anything is downloaded.

In: a hub id, lengths and a mesh. Out: a shape, or what does not fit. The trainer asks the same questions again with the
shape that it reads from a folder. Numbers: each model's `config.json` on https://huggingface.co, compared line by line
with LitGPT's table of them (https://github.com/Lightning-AI/litgpt/blob/main/litgpt/config.py), which gives one number
of positions for all names of a shape; docs/untried.md names those that only this table has. Refuses to know JAX.
"""

from dataclasses import dataclass

from trainer.contract.meshshape import Mesh
from trainer.contract.violations import Spelling, Violation, use


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the rules need of a model; `hidden` and `intermediate` in floats per token, `max_positions` in tokens."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    max_positions: int


def _known() -> dict[str, ModelShape]:
    base_instruct = "{}", "{}-Instruct"
    table = (
        # ids, names, (layers, hidden, intermediate, heads, kv heads, head dim, vocab), positions of each name
        ("Qwen/Qwen2.5-0.5B", base_instruct, (24, 896, 4864, 14, 2, 64, 151936), (32768, 32768)),
        ("Qwen/Qwen2.5-1.5B", base_instruct, (28, 1536, 8960, 12, 2, 128, 151936), (131072, 32768)),
        ("Qwen/Qwen2.5-3B", base_instruct, (36, 2048, 11008, 16, 2, 128, 151936), (32768, 32768)),
        ("Qwen/Qwen2.5-7B", base_instruct, (28, 3584, 18944, 28, 4, 128, 152064), (131072, 32768)),
        ("Qwen/Qwen2.5-14B", base_instruct, (48, 5120, 13824, 40, 8, 128, 152064), (131072, 32768)),
        ("Qwen/Qwen2.5-32B", base_instruct, (64, 5120, 27648, 40, 8, 128, 152064), (131072, 32768)),
        ("Qwen/Qwen3-0.6B", ("{}", "{}-Base"), (28, 1024, 3072, 16, 8, 128, 151936), (40960, 32768)),
        ("Qwen/Qwen3-1.7B", ("{}", "{}-Base"), (28, 2048, 6144, 16, 8, 128, 151936), (40960, 32768)),
        ("Qwen/Qwen3-4B", ("{}", "{}-Base"), (36, 2560, 9728, 32, 8, 128, 151936), (40960, 32768)),
        ("Qwen/Qwen3-8B", ("{}", "{}-Base"), (36, 4096, 12288, 32, 8, 128, 151936), (40960, 32768)),
        ("meta-llama/Llama-3.2-1B", base_instruct, (16, 2048, 8192, 32, 8, 64, 128256), (131072, 131072)),
        ("meta-llama/Llama-3.2-3B", base_instruct, (28, 3072, 8192, 24, 8, 128, 128256), (131072, 131072)),
        ("meta-llama/Llama-3.1-8B", base_instruct, (32, 4096, 14336, 32, 8, 128, 128256), (131072, 131072)),
        ("HuggingFaceTB/SmolLM2-135M", base_instruct, (30, 576, 1536, 9, 3, 64, 49152), (8192, 8192)),
        ("HuggingFaceTB/SmolLM2-360M", base_instruct, (32, 960, 2560, 15, 5, 64, 49152), (8192, 8192)),
        ("HuggingFaceTB/SmolLM2-1.7B", base_instruct, (24, 2048, 8192, 32, 32, 64, 49152), (8192, 8192)),
    )
    return {
        name.format(hub_id): ModelShape(*numbers, max_positions=limit)
        for hub_id, names, numbers, positions in table
        for name, limit in zip(names, positions, strict=True)
    }


KNOWN_MODELS = _known()


def known_shape(model_path: str) -> ModelShape | None:
    """The bundled shape of `hub-id[@revision]`; None for folders, buckets and models that are not in the table."""
    return KNOWN_MODELS.get(model_path.partition("@")[0])


def check_lengths(
    shape: ModelShape, model: str, global_length: int, max_length_sample: int, spelling: Spelling
) -> Violation | None:
    """Rule `lengths`: prompt and completion together fit the positions that the model was made for."""
    limit = shape.max_positions
    if global_length + max_length_sample <= limit:
        return None
    asked = {"max_length_sample": max_length_sample, "global_length": global_length}
    blamed, other = ("max_length_sample", "global_length") if global_length < limit else tuple(reversed(asked))
    room = limit - asked[other]
    value = asked[blamed]
    message = (
        f"{value} + {spelling.name(other)} {asked[other]} = {global_length + max_length_sample} tokens must be at most "
        f"{limit}, the positions of {model}; "
    )
    fix = (
        use([room]) if room >= 1 else f"lower {spelling.name('global_length')} and {spelling.name('max_length_sample')}"
    )
    return Violation("lengths", spelling.path(f"rollout.{blamed}"), value, message + fix)


def check_model_over_tp(
    shape: ModelShape, model: str, mesh: Mesh, mesh_shape: str, spelling: Spelling
) -> Violation | None:
    """Rule `model-over-tp`: every axis that tensor parallelism splits is whole on each of its devices."""
    sizes = {
        "heads": shape.heads,
        "kv heads": shape.kv_heads,
        "hidden size": shape.hidden,
        "intermediate size": shape.intermediate,
    }
    split = [f"{name} {size}" for name, size in sizes.items() if size % mesh.tp]
    if not split:
        return None
    message = (
        f'"{mesh_shape}" has tp = {mesh.tp}, which must divide the sizes of {model}, and does not divide '
        f"{' or '.join(split)}; choose a tp that divides heads, kv heads, hidden and intermediate size"
    )
    return Violation("model-over-tp", spelling.path("mesh_shape"), mesh_shape, message)
