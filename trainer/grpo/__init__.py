"""The mathematics of GRPO: advantages and losses as pure functions, each formula with its source."""
