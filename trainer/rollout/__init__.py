"""Station 8, rollout: prompts to completions, K rows a prompt, by compiled programs in chunks of tokens.

Comes in: parameters and this process's prompts. Goes out: this process's completions as token ids. Refuses to know:
text, rewards, advantages.
"""

from trainer.rollout.generation import Completions, Rollout
from trainer.rollout.layout import bucket
from trainer.rollout.stopping import StopStrings

__all__ = ["Completions", "Rollout", "StopStrings", "bucket"]
