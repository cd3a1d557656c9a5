"""What every part of the tree is made of: the base of its sections, and types with bounds that several keys share.

In: nothing. Out: types. Refuses to know any key.
"""

import json
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from trainer.contract.judgement import MAX_BATCH
from trainer.contract.violations import to_camel

MAX_LENGTH = 2**20

Count = Annotated[int, Field(gt=0, le=MAX_BATCH)]
Length = Annotated[int, Field(gt=0, le=MAX_LENGTH)]
Text = Annotated[str, Field(min_length=1, max_length=1024)]
Prose = Annotated[str, Field(max_length=16384)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def _finite_json(args: dict[str, Any]) -> dict[str, Any]:
    """run.json must come back as it went, and JSON has no NaN and no infinity."""
    try:
        json.dumps(args, allow_nan=False)
    except ValueError as error:
        raise ValueError("it holds a number that JSON cannot write") from error
    return args


Args = Annotated[dict[str, JsonValue], Field(max_length=64), AfterValidator(_finite_json)]


class Section(BaseModel):
    """A part of the tree: frozen, unknown keys refused, strict types, snake_case name and camelCase alias."""

    model_config = ConfigDict(
        defer_build=True, frozen=True, extra="forbid", strict=True, alias_generator=to_camel, validate_by_name=True
    )
