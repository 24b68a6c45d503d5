"""The decoder block of a transformer, whole sequences at once or step by step."""

import keras
from keras import ops

from kseq.errors import InputError
from kseq.layers.transformer_block import TransformerBlock


@keras.saving.register_keras_serializable(package="kseq")
class TransformerDecoderBlock(TransformerBlock):
    """Causal self-attention, attention to an encoded sequence, and a feed-forward network.

    With `norm_first`                             and otherwise, as in the transformer of 2017,

        x'  = x + MultiHead(LN(x))                    x'  = LN(x + MultiHead(x))
        x'' = x' + MultiHead(LN(x'), memory)          x'' = LN(x' + MultiHead(x', memory))
        y   = x'' + FFN(LN(x''))                      y   = LN(x'' + FFN(x''))

    Token t of the first attention looks at tokens up to t. Called without a memory, the block has no second line: the
    block of a causal language model (GPT).

    Step by step, pass a cache of the keys and values so far and the index of the token; the outputs are those of the
    whole sequence:

        cache = block.make_cache(batch_size, length)
        memory_cache = block.project(memory)
        y, cache = block(x[:, t : t + 1], cache=cache, cache_update_index=t, memory_cache=memory_cache)

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.1.

    Args:
        num_heads: heads of each attention; they must divide the size of a token.
        hidden_dim: size of the hidden layer of FFN.
        norm_first: whether the normalisation stands in front of a branch or behind its residual.
        activation: of the hidden layer; "gelu" is the exact one, "gelu_tanh" the other.
        dropout: share of the values set to zero while training, behind each branch and in the hidden layer.
        attention_dropout: share of the attention weights set to zero while training.
        drop_path: share of the samples for which a branch is left out while training.
        use_bias: whether the products have a bias.
        epsilon: ε of the normalisations (1e-5 in `torch.nn`).
        kernel_initializer: of all products.
        bias_initializer: of their biases.
        remat: whether the branches are computed again in the backward pass instead of being kept (`keras.remat`, which
            is mended on JAX). Not with `dropout` or `attention_dropout`.

    Call arguments:
        inputs: `(batch, tokens, embed_dim)`.
        memory: the encoded sequence, `(batch, memory_tokens, memory_dim)`, or `None`.
        use_causal_mask: whether token t may look at tokens up to t only; default true.
        attention_mask: boolean, true where a token may look at a token, as in `MultiHeadAttention`.
        attention_bias: added to the logits of the first attention, as in `MultiHeadAttention`.
        cache: keys and values of the tokens so far, `(batch, 2, length, heads, head_dim)`.
        cache_update_index: the index of the first token of `inputs`.
        memory_cache: `project(memory)`, in place of `memory`.
        return_attention_scores: whether to return `(outputs, weights)`, with a cache `(outputs, weights, cache)`: the
            weights of the attention to the memory, `(batch, heads, tokens, memory_tokens)`, or without a memory those
            of the first attention.

    Masking: masked tokens of `inputs` and `memory` are not looked at; the mask of `inputs` is passed on. With a cache,
    mask with `attention_mask`, and the memory with `memory_mask`.

    Output shape: `(batch, tokens, embed_dim)`; with a cache `(outputs, cache)`.

    Raises:
        InputError: if an argument is out of range, the heads do not divide `embed_dim`, only one of `cache` and
            `cache_update_index` is given, or a block built without a memory is given one, or the other way round.
    """

    def build(self, inputs_shape, memory_shape=None):
        self.attention = self._add_attention("attention", inputs_shape)
        if memory_shape is not None:
            self.cross_attention = self._add_attention("cross_attention", inputs_shape, memory_shape)
        self.feed_forward = self._add_feed_forward("feed_forward", inputs_shape)
        self.has_memory = memory_shape is not None
        self.built = True

    def make_cache(self, batch_size: int, length: int):
        """An empty cache for `length` tokens: zeros `(batch_size, 2, length, heads, head_dim)`."""
        return self.attention.make_cache(batch_size, length)

    def project(self, memory):
        """Keys and values of a memory, computed once for all steps: `(batch, 2, memory_tokens, heads, head_dim)`."""
        return self.cross_attention.project(memory)

    def call(
        self,
        inputs,
        memory=None,
        *,
        mask=None,
        inputs_mask=None,
        memory_mask=None,
        attention_mask=None,
        attention_bias=None,
        use_causal_mask=True,
        cache=None,
        cache_update_index=None,
        memory_cache=None,
        return_attention_scores=False,
        training=None,
    ):
        if (cache is None) != (cache_update_index is None):
            raise InputError("cache, cache_update_index: only one is given; give both or neither")
        if self.has_memory == (memory is None and memory_cache is None):
            has = "has an attention to a memory" if self.has_memory else "has none, because it was built without"
            raise InputError(f"memory: {self.name} {has}; call it always with a memory or memory_cache, or never")
        x, *more = self._residual(
            "attention",
            ops.cast(inputs, self.compute_dtype),
            {"cache": cache, "attention_bias": attention_bias},
            query_mask=mask if inputs_mask is None else inputs_mask,
            attention_mask=attention_mask,
            use_causal_mask=use_causal_mask,
            cache_update_index=cache_update_index,
            return_attention_scores=return_attention_scores and not self.has_memory,
            training=training,
        )
        if self.has_memory:
            x, *weights = self._residual(
                "cross_attention",
                x,
                {"value": memory, "cache": memory_cache},
                value_mask=memory_mask,
                return_attention_scores=return_attention_scores,
                training=training,
            )
            more = [*weights[: int(return_attention_scores)], *more]
        (x,) = self._residual("feed_forward", x, training=training)
        return (x, *more) if more else x

    def compute_output_spec(
        self, inputs, memory=None, *, cache=None, memory_cache=None, return_attention_scores=False, **arguments
    ):
        outputs = keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)
        more = []
        if return_attention_scores:
            keys = (inputs if cache is None else cache[:, 0]).shape[1]
            if memory is not None or memory_cache is not None:
                keys = (memory if memory_cache is None else memory_cache[:, 0]).shape[1]
            shape = (inputs.shape[0], self.num_heads, inputs.shape[1], keys)
            more.append(keras.KerasTensor(shape, dtype=self.compute_dtype))
        if cache is not None:
            more.append(keras.KerasTensor(cache.shape, dtype=cache.dtype))
        return (outputs, *more) if more else outputs

    def compute_output_shape(self, inputs_shape, memory_shape=None):
        return inputs_shape
