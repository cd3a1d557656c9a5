"""Rewards of station 8: completions and their row's columns come in, one number or None per completion goes out.

Built in are `correct`, `format` and `tags`; anything else is a user's function with TRL's signature, which runs in a
process of its own. Nothing here knows tokens, devices or JAX.
"""

from trainer.rewards.scoring import RewardSet as RewardSet
from trainer.rewards.scoring import Rows as Rows
from trainer.rewards.scoring import Scores as Scores
