"""Attention that stays right under a differentiated JVP, rotary embeddings."""

from __future__ import annotations

import math
import typing

import keras
import numpy as np
from keras import ops

from keras_flows.networks.layers.dense import Dense
from keras_flows.networks.layers.normalization import RMSNormalization
from keras_flows.ops import dot_product_attention
from keras_flows.ops import register
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from typing import Any

    from keras_flows.ops.types import Shape


def rotary_angles(rows, columns, head, extent=None):
    """Angles of 2-D rotary embeddings, (rows * columns, head / 2), float64.

    The first half turns by the row, the second by the column, at the
    frequencies 10000^(-k / (head / 4)). Rows and columns count from 0 by 1,
    or from 0 to `extent` where it is given.
    """
    frequencies = 10_000.0 ** (-np.arange(head // 4) / (head // 4))
    row, column = np.divmod(np.arange(rows * columns), columns)
    if extent is not None:
        row = row * extent / max(rows - 1, 1)
        column = column * extent / max(columns - 1, 1)
    return np.concatenate(
        [p[:, None] * frequencies for p in (row, column)], axis=1
    )


def rotate(x, turns):
    """Turn neighbouring pairs of features: x (B, T, heads, head).

    Args:
        x: queries or keys.
        turns: cosine and sine of `rotary_angles`, in the dtype of x.
    """
    cos, sin = (turn[:, None] for turn in turns)
    pairs = ops.reshape(x, (-1, *x.shape[1:-1], x.shape[-1] // 2, 2))
    a, b = pairs[..., 0], pairs[..., 1]
    turned = ops.stack([a * cos - b * sin, b * cos + a * sin], axis=-1)
    return ops.reshape(turned, (-1, *x.shape[1:]))


def attend(q, k, v, mask=None):
    """softmax(Q K^T / sqrt(d)) V: (B, T, heads, d), (B, S, heads, d) twice.

    Args:
        mask: None, or a boolean array (T, S), whether token t sees token s.
    """
    scale = 1.0 / math.sqrt(q.shape[-1])
    if mask is not None:
        mask = ops.convert_to_tensor(mask[None, None], dtype="bool")
    if keras.backend.standardize_dtype(q.dtype) != "float64":
        return dot_product_attention(q, k, v, mask, scale)
    # JAX's kernel computes its logits in float32 whatever comes in.
    logits = ops.einsum("bqhd,bkhd->bhqk", q * scale, k)
    if mask is not None:
        logits = ops.where(mask, logits, -1e30)
    return ops.einsum("bhqk,bkhd->bqhd", ops.softmax(logits, axis=-1), v)


def _check_heads(channels, num_heads):
    if channels % num_heads:
        raise ValueError(
            f"`num_heads` ({num_heads}) must divide the number of channels "
            f"({channels})."
        )


@register
class SelfAttention(keras.layers.Layer):
    """Multi-head self-attention over tokens: (B, T, C) -> (B, T, C).

    softmax(Q K^T / sqrt(d)) V through `keras.ops.dot_product_attention`,
    which `keras_flows.ops.jvp` keeps to kernels with a forward derivative, so
    that the fused ones stay in use everywhere else.

    Args:
        num_heads: number of heads; must divide C.
        qk_norm: whether queries and keys are normalised (`RMSNormalization`).
        rope: None, or (rows, columns) of the grid of tokens for rotary
            embeddings; C / num_heads must then be a multiple of 4.
        qkv_initializer: initializer of the joint projection.
        out_initializer: initializer of the output projection.
        qkv_bias: whether the joint projection has a bias.
        rope_extent: None, or the position of the last row and column where
            it is not their index: weights then fit grids of any size.
        causal: whether a token sees only itself and those before it.
    """

    @checked(num_heads=SIZE, qk_norm=FLAG, qkv_bias=FLAG, causal=FLAG)
    def __init__(
        self,
        num_heads: int = 4,
        qk_norm: bool = False,
        rope: Shape | None = None,
        qkv_initializer: str
        | keras.initializers.Initializer = "glorot_uniform",
        out_initializer: str
        | keras.initializers.Initializer = "glorot_uniform",
        qkv_bias: bool = True,
        rope_extent: float | None = None,
        causal: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.qkv_initializer = keras.initializers.get(qkv_initializer)
        self.out_initializer = keras.initializers.get(out_initializer)
        self.num_heads = num_heads
        self.qk_norm = qk_norm
        self.rope = None if rope is None else tuple(rope)
        self.qkv_bias = qkv_bias
        self.rope_extent = rope_extent
        self.causal = causal

    def build(self, input_shape):
        if self.built:
            return
        channels = input_shape[-1]
        _check_heads(channels, self.num_heads)
        self.qkv = Dense(
            3 * channels,
            use_bias=self.qkv_bias,
            kernel_initializer=self.qkv_initializer,
            dtype=self.dtype_policy,
            name="qkv",
        )
        self.out = Dense(
            channels,
            kernel_initializer=self.out_initializer,
            dtype=self.dtype_policy,
            name="out",
        )
        self.qkv.build(input_shape)
        self.out.build(input_shape)
        head = channels // self.num_heads
        if self.qk_norm:
            self.q_norm = RMSNormalization(
                dtype=self.dtype_policy, name="q_norm"
            )
            self.k_norm = RMSNormalization(
                dtype=self.dtype_policy, name="k_norm"
            )
            self.q_norm.build((None, head))
            self.k_norm.build((None, head))
        if self.rope is not None:
            if head % 4:
                raise ValueError(
                    "Rotary embeddings need a head size that 4 divides. "
                    f"Received: {channels} channels / {self.num_heads} heads."
                )
            angles = rotary_angles(*self.rope, head, self.rope_extent)
            self._turns = np.cos(angles), np.sin(angles)
        self.built = True

    def call(self, x):
        _, tokens, channels = x.shape
        head = channels // self.num_heads
        qkv = ops.reshape(self.qkv(x), (-1, tokens, 3, self.num_heads, head))
        q, k, v = ops.unstack(qkv, axis=2)
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.rope is not None:
            turns = [
                ops.convert_to_tensor(turn, dtype=q.dtype)
                for turn in self._turns
            ]
            q, k = rotate(q, turns), rotate(k, turns)
        mask = np.tri(tokens, dtype="bool") if self.causal else None
        y = attend(q, k, v, mask)
        return self.out(ops.reshape(y, (-1, tokens, channels)))

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "qk_norm": self.qk_norm,
            "rope": self.rope,
            "qkv_initializer": keras.initializers.serialize(
                self.qkv_initializer
            ),
            "out_initializer": keras.initializers.serialize(
                self.out_initializer
            ),
            "qkv_bias": self.qkv_bias,
            "rope_extent": self.rope_extent,
            "causal": self.causal,
        }


@register
class CrossAttention(keras.layers.Layer):
    """Multi-head attention to a memory: (B, T, C), (B, S, D) -> (B, T, C).

    Queries from the tokens, keys and values from the memory; see
    `SelfAttention`.

    Args:
        num_heads: number of heads; must divide C.
        causal_offset: None, or how far ahead a token sees: token t sees the
            tokens s <= t + causal_offset of the memory.
        kernel_initializer: initializer of all projections.
    """

    @checked(num_heads=SIZE)
    def __init__(
        self,
        num_heads: int = 4,
        causal_offset: int | None = None,
        kernel_initializer: str
        | keras.initializers.Initializer = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.causal_offset = causal_offset
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, x_shape, memory_shape):
        if self.built:
            return
        channels = x_shape[-1]
        _check_heads(channels, self.num_heads)

        def dense(units, name):
            return Dense(
                units,
                kernel_initializer=self.kernel_initializer.clone(),
                dtype=self.dtype_policy,
                name=name,
            )

        self.q, self.kv = dense(channels, "q"), dense(2 * channels, "kv")
        self.out = dense(channels, "out")
        self.q.build(x_shape)
        self.kv.build(memory_shape)
        self.out.build(x_shape)
        self.built = True

    def call(self, x, memory):
        _, tokens, channels = x.shape
        head = (self.num_heads, channels // self.num_heads)
        q = ops.reshape(self.q(x), (-1, tokens, *head))
        kv = ops.reshape(self.kv(memory), (-1, memory.shape[1], 2, *head))
        mask = None
        if self.causal_offset is not None:
            shape = (tokens, memory.shape[1])
            mask = np.tri(*shape, self.causal_offset, dtype="bool")
        y = attend(q, *ops.unstack(kv, axis=2), mask)
        return self.out(ops.reshape(y, (-1, tokens, channels)))

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "causal_offset": self.causal_offset,
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
        }
