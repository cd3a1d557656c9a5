"""The launched half: a JAX GRPO trainer. `trainer.contract` is all that the controller may import from here."""
