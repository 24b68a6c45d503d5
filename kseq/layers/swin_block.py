"""The block of a Swin transformer."""

from collections.abc import Sequence

import keras
from keras import ops

from kseq.errors import InputError
from kseq.layers.initializers import clone
from kseq.layers.transformer_block import TransformerBlock
from kseq.layers.window_attention import WindowAttention, check_window, fitting_window


@keras.saving.register_keras_serializable(package="kseq")
class SwinBlock(TransformerBlock):
    """Attention within windows and a feed-forward network, each behind a normalisation and with a residual:

        x' = x + (S)W-MSA(LN(x)),   y = x' + MLP(LN(x'))

    The windows of blocks with a `shift` lie across the borders of those without; a stage takes turns. With
    `global_tokens`, each window has tokens g of its own, g' = W-MSA([g; LN(x)]): without normalisation, residual or
    network, as in the published code for images (`kseq.layers.GlobalAttention` then joins those of all windows).

    Along each axis the window is no longer than the map, and there is no shift where one window covers it.

    Source: Liu et al. 2021 (arXiv 2103.14030), equation 3; Themyr et al. 2023 (arXiv 2212.07890). Reference
    implementations: microsoft/Swin-Transformer (for maps shorter than the window along one axis only it makes the
    window square; here it is as in timm, `swin_transformer.py`); themyrl/glam, `swin_transformer_gtv8.py` (which fills
    such maps up to the window).

    Args:
        num_heads: heads of the attention; they must divide the channels.
        window_size: of each axis, or one number for all.
        shift: whether the windows are shifted by half their size, w // 2.
        mlp_ratio: size of the hidden layer of MLP, in units of the channels.
        global_tokens: tokens of each window besides those of the map.
        qkv_bias: whether the products that make query, key and value have a bias.
        activation: of the hidden layer; "gelu" is the exact one, "gelu_tanh" the other.
        dropout: share of the values set to zero while training, behind each branch and in the hidden layer.
        attention_dropout: share of the attention weights set to zero while training.
        drop_path: stochastic depth: share of the samples for which a branch is left out while training.
        legacy: whether maps are filled up as in timm, see `WindowAttention`.
        epsilon: ε of the normalisations.
        kernel_initializer: of all products.
        bias_initializer: of their biases.
        **kwargs: `norm_first`, `use_bias` of MLP, and `remat` as in `TransformerEncoderBlock`.

    Call arguments:
        inputs: a map `(batch, *space, dim)` with one to three axes of space, of known sizes.
        tokens: with `global_tokens`, `(batch, windows, g, dim)`, the windows in row-major order.

    Output shape: that of `inputs`; with `global_tokens` a tuple of that and the shape of `tokens`.

    Raises:
        InputError: if an argument is out of range or does not fit the map.
    """

    def __init__(
        self,
        num_heads: int,
        window_size: int | Sequence[int],
        *,
        shift: bool = False,
        mlp_ratio: float = 4.0,
        global_tokens: int = 0,
        qkv_bias: bool = True,
        legacy: bool = False,
        epsilon: float = 1e-5,
        **kwargs,
    ):
        # The size of the hidden layer is known when the block is built.
        super().__init__(num_heads, hidden_dim=1, epsilon=epsilon, **kwargs)
        check_window(window_size)
        if mlp_ratio <= 0:
            raise InputError(f"mlp_ratio {mlp_ratio!r}: give more than 0")
        if global_tokens < 0:
            raise InputError(f"global_tokens {global_tokens!r}: give 0 or more")
        self.window_size = window_size if isinstance(window_size, int) else tuple(window_size)
        self.shift, self.mlp_ratio, self.global_tokens, self.qkv_bias = shift, mlp_ratio, global_tokens, qkv_bias
        self.legacy = legacy

    def build(self, inputs_shape, tokens_shape=None):
        window = fitting_window(self.window_size, inputs_shape)
        sizes = zip(window, inputs_shape[1:-1], strict=True)
        self.attention = WindowAttention(
            window,
            self.num_heads,
            shift_size=tuple(w // 2 if self.shift and w < size else 0 for w, size in sizes),
            global_tokens=self.global_tokens,
            qkv_bias=self.qkv_bias,
            attention_dropout=self.attention_dropout,
            legacy=self.legacy,
            kernel_initializer=clone(self.kernel_initializer),
            bias_initializer=clone(self.bias_initializer),
            dtype=self.dtype_policy,
            name="attention",
        )
        self.attention.build(inputs_shape, tokens_shape)
        self._surround("attention", inputs_shape)
        self.hidden_dim = int(inputs_shape[-1] * self.mlp_ratio)
        self.feed_forward = self._add_feed_forward("feed_forward", inputs_shape)
        self.built = True

    def call(self, inputs, tokens=None, training=None):
        x = ops.cast(inputs, self.compute_dtype)
        if self.global_tokens:
            tokens = {"tokens": ops.cast(tokens, self.compute_dtype)}
            x, tokens = self._residual("attention", x, tokens, training=training)
            tokens = self.drops["attention"](tokens, training=training)
        else:
            (x,) = self._residual("attention", x, training=training)
        (x,) = self._residual("feed_forward", x, training=training)
        return (x, tokens) if self.global_tokens else x

    def compute_output_shape(self, inputs_shape, tokens_shape=None):
        return (inputs_shape, tokens_shape) if self.global_tokens else inputs_shape

    def get_config(self):
        config = super().get_config()
        del config["hidden_dim"]
        return config | {
            "window_size": self.window_size,
            "shift": self.shift,
            "mlp_ratio": self.mlp_ratio,
            "global_tokens": self.global_tokens,
            "qkv_bias": self.qkv_bias,
            "legacy": self.legacy,
        }
