"""The encoder block of a transformer."""

import keras
from keras import ops

from kseq.layers.transformer_block import TransformerBlock


@keras.saving.register_keras_serializable(package="kseq")
class TransformerEncoderBlock(TransformerBlock):
    """Self-attention and a feed-forward network, each with a residual and a layer normalisation.

    With `norm_first`, as in ViT,                 otherwise, as in the transformer of 2017,

        x' = x + MultiHead(LN(x))                     x' = LN(x + MultiHead(x))
        y  = x' + FFN(LN(x'))                         y  = LN(x' + FFN(x'))

    A stack with `norm_first` needs a layer normalisation of its own behind the last block.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.1; Dosovitskiy et al. 2021 (arXiv 2010.11929), equations 2
    and 3.

    Args:
        num_heads: heads of the attention; they must divide the size of a token.
        hidden_dim: size of the hidden layer of FFN.
        norm_first: whether the normalisation stands in front of a branch or behind its residual.
        activation: of the hidden layer; "gelu" is the exact one, "gelu_tanh" the other.
        dropout: share of the values set to zero while training, behind each branch and in the hidden layer.
        attention_dropout: share of the attention weights set to zero while training.
        drop_path: stochastic depth: share of the samples for which a branch is left out while training, the others
            scaled up, as timm does; Huang et al. 2016 (arXiv 1603.09382) leave it out for whole batches.
        use_bias: whether the products have a bias.
        epsilon: ε of the normalisations (1e-6 in ViT; 1e-5 in `torch.nn`).
        kernel_initializer: of all products.
        bias_initializer: of their biases.
        remat: whether the branches are computed again in the backward pass instead of being kept: less memory, about
            a third more time (`keras.remat`, mended on JAX). Not with `dropout` or `attention_dropout`.

    Call arguments:
        inputs: `(batch, tokens, embed_dim)`.
        attention_mask: boolean, true where a token may look, as in `MultiHeadAttention`.
        attention_bias: added to the logits of the attention, as in `MultiHeadAttention`.
        use_causal_mask: whether token t may look at tokens up to t only.
        return_attention_scores: whether to return `(outputs, weights)`, weights `(batch, heads, tokens, tokens)`.

    Masking: masked tokens are not looked at; they are computed like the others, and the mask is passed on.

    Output shape: `(batch, tokens, embed_dim)`.

    Raises:
        InputError: if an argument is out of range or the heads do not divide `embed_dim`.
    """

    def build(self, input_shape):
        self.attention = self._add_attention("attention", input_shape)
        self.feed_forward = self._add_feed_forward("feed_forward", input_shape)
        self.built = True

    def call(
        self,
        inputs,
        *,
        mask=None,
        inputs_mask=None,
        attention_mask=None,
        attention_bias=None,
        use_causal_mask=False,
        return_attention_scores=False,
        training=None,
    ):
        x, *weights = self._residual(
            "attention",
            ops.cast(inputs, self.compute_dtype),
            {"attention_bias": attention_bias},
            query_mask=mask if inputs_mask is None else inputs_mask,
            attention_mask=attention_mask,
            use_causal_mask=use_causal_mask,
            return_attention_scores=return_attention_scores,
            training=training,
        )
        (x,) = self._residual("feed_forward", x, training=training)
        return (x, *weights) if return_attention_scores else x

    def compute_output_spec(self, inputs, *, return_attention_scores=False, **arguments):
        outputs = keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)
        if not return_attention_scores:
            return outputs
        batch, tokens, _ = inputs.shape
        return outputs, keras.KerasTensor((batch, self.num_heads, tokens, tokens), dtype=self.compute_dtype)
