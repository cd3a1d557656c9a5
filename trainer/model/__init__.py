"""Station 7, the model: one config-driven decoder as a pytree of stacked layer weights and pure functions.

Comes in: a Hugging Face folder. Goes out: sharded parameters, hidden states, tokenizer. Refuses to know: batches,
rewards, optimizers, and how many processes there are.
"""
