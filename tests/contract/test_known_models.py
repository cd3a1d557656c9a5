"""Rules that need the model's shape."""

import pytest

from trainer.contract.models import KNOWN_MODELS, check_lengths, check_model_over_tp, known_shape
from trainer.contract.run import Machine, resolve_run
from trainer.contract.runner import merge
from trainer.contract.violations import Spelling


def lines(*sets: str) -> list[str]:
    machine = Machine(1, 8, 1, 1, "tpu")
    parsed = merge("rollout: {batch_size: 128}", sets)
    resolution = resolve_run(parsed, machine, "x", Spelling.RUNNER)
    return [str(violation).removesuffix(" (the value came from --set)") for violation in resolution.violations]


@pytest.mark.parametrize("model", sorted(KNOWN_MODELS))
def test_shapes_are_consistent(model: str) -> None:
    """Attention heads share kv heads evenly; only Qwen3 has heads whose width is not hidden size / heads."""
    shape = KNOWN_MODELS[model]
    assert shape.heads % shape.kv_heads == 0
    assert (shape.heads * shape.head_dim == shape.hidden) or model.startswith("Qwen/Qwen3-")


def test_parameter_counts_match_the_models_names() -> None:
    """Counting the weights of a shape gives the size that the model is known by, within a tenth."""
    sizes = {
        "Qwen/Qwen2.5-0.5B": 0.494,
        "Qwen/Qwen2.5-7B": 7.61,
        "Qwen/Qwen2.5-14B": 14.7,
        "Qwen/Qwen2.5-32B": 32.5,
        "Qwen/Qwen3-4B": 4.0,
        "Qwen/Qwen3-8B": 8.2,
        "meta-llama/Llama-3.2-3B": 3.2,
        "meta-llama/Llama-3.1-8B": 8.0,
        "HuggingFaceTB/SmolLM2-135M": 0.135,
        "HuggingFaceTB/SmolLM2-360M": 0.362,
        "HuggingFaceTB/SmolLM2-1.7B": 1.71,
    }
    tied = ("0.5B", "3-4B", "3.2-3B", "135M", "360M", "1.7B")
    for model, billions in sizes.items():
        shape = KNOWN_MODELS[model]
        attention = shape.hidden * shape.head_dim * (2 * shape.heads + 2 * shape.kv_heads)
        layer = attention + 3 * shape.hidden * shape.intermediate
        tables = 1 if model.endswith(tied) else 2
        total = shape.layers * layer + tables * shape.vocab * shape.hidden
        assert total / 1e9 == pytest.approx(billions, rel=0.03), model


def test_a_revision_is_no_part_of_the_models_name() -> None:
    """A hub id with a revision has the shape of its model; folders have none here."""
    assert known_shape("Qwen/Qwen3-4B@main") == KNOWN_MODELS["Qwen/Qwen3-4B"]
    assert known_shape("/models/Qwen/Qwen3-4B") is None


def test_lengths_beyond_the_models_positions_are_refused() -> None:
    """The sum of both lengths is bounded by the model; the one that can heal it is blamed, with the room left."""
    assert lines("model_path=Qwen/Qwen2.5-3B-Instruct", "rollout.max_length_sample=32768") == [
        "rollout.max_length_sample: 32768 + global_length 512 = 33280 tokens must be at most 32768, the positions of "
        "Qwen/Qwen2.5-3B-Instruct; use 32256"
    ]
    assert lines("model_path=Qwen/Qwen2.5-3B-Instruct", "rollout.global_length=40000") == [
        "rollout.global_length: 40000 + max_length_sample 512 = 40512 tokens must be at most 32768, the positions of "
        "Qwen/Qwen2.5-3B-Instruct; use 32256"
    ]
    both = ("rollout.global_length=40000", "rollout.max_length_sample=40000")
    assert lines("model_path=Qwen/Qwen2.5-3B-Instruct", *both) == [
        "rollout.global_length: 40000 + max_length_sample 40000 = 80000 tokens must be at most 32768, the positions of "
        "Qwen/Qwen2.5-3B-Instruct; lower global_length and max_length_sample"
    ]
    assert lines("model_path=Qwen/Qwen2.5-3B-Instruct", "rollout.max_length_sample=32256") == []
    assert lines("model_path=/models/any", "rollout.max_length_sample=32768") == []


def test_tensor_parallelism_splits_only_what_divides() -> None:
    """A tp that leaves a fraction of a head is refused with the sizes that it does not divide."""
    assert lines("model_path=Qwen/Qwen2.5-0.5B-Instruct", "mesh_shape='1,-1,4'") == [
        'mesh_shape: "1,-1,4" has tp = 4, which must divide the sizes of Qwen/Qwen2.5-0.5B-Instruct, and does not '
        "divide heads 14 or kv heads 2; choose a tp that divides heads, kv heads, hidden and intermediate size"
    ]
    assert lines("model_path=Qwen/Qwen2.5-0.5B-Instruct", "mesh_shape='1,-1,2'") == []


def test_a_folders_shape_is_asked_the_same_questions() -> None:
    """The trainer's start uses the same functions for a model that is in no table."""
    from trainer.contract.meshshape import Mesh

    shape = KNOWN_MODELS["Qwen/Qwen2.5-0.5B"]
    assert check_lengths(shape, "/m", 512, 512, Spelling.RUNNER) is None
    assert check_model_over_tp(shape, "/m", Mesh(dp=1, fsdp=4, tp=2), "1,4,2", Spelling.RUNNER) is None
    found = check_model_over_tp(shape, "/m", Mesh(dp=1, fsdp=2, tp=4), "1,2,4", Spelling.GRPOJOB)
    assert found is not None
    assert (found.rule, found.path) == ("model-over-tp", "spec.meshShape")
