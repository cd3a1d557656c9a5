"""Rotary positions: RoFormer (https://arxiv.org/abs/2104.09864), in the half-split layout of Hugging Face checkpoints.

Comes in: positions. Goes out: cosines and sines, and rotated queries and keys. Refuses to know: masks, caches.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from trainer.model.config import Llama3Rope, ModelConfig


def inverse_frequencies(config: ModelConfig) -> np.ndarray:
    """float32 [head_dim / 2]: radians per position of each rotated pair."""
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim
    plain = config.rope_theta**-exponents
    scaled = plain if config.rope_scaling is None else _stretch(plain, config.rope_scaling)
    return scaled.astype(np.float32)


def _stretch(plain: np.ndarray, scaling: Llama3Rope) -> np.ndarray:
    """Llama 3.1: long wavelengths are slowed by `factor`, short ones kept, those between blended.

    https://github.com/meta-llama/llama-models/blob/main/models/llama3/model.py (apply_scaling)
    """
    wavelength = 2 * math.pi / plain
    turns = scaling.original_max_positions / wavelength
    blend = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    blend = np.clip(blend, 0.0, 1.0)
    stretched: np.ndarray = (1 - blend) * plain / scaling.factor + blend * plain
    return stretched


def rotations(config: ModelConfig, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine, float32 [*positions.shape, head_dim / 2], of int32 positions of any shape."""
    frequencies = jnp.asarray(inverse_frequencies(config))
    angles = jnp.expand_dims(positions.astype(jnp.float32), -1) * jnp.expand_dims(
        frequencies, tuple(range(positions.ndim))
    )
    return jnp.cos(angles), jnp.sin(angles)


def rotate(heads: jax.Array, cosine: jax.Array, sine: jax.Array) -> jax.Array:
    """Turn [..., head, head_dim] by angles [..., head_dim / 2]; computed in float32, returned in its own dtype."""
    first, second = jnp.split(heads.astype(jnp.float32), 2, axis=-1)
    cosine, sine = jnp.expand_dims(cosine, -2), jnp.expand_dims(sine, -2)
    turned = jnp.concatenate((first * cosine - second * sine, second * cosine + first * sine), axis=-1)
    return turned.astype(heads.dtype)
