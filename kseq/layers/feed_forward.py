"""The position-wise network of a transformer."""

import keras

from kseq.backend.gelu import gelu
from kseq.errors import InputError
from kseq.layers.dense import Dense
from kseq.layers.initializers import clone


@keras.saving.register_keras_serializable(package="kseq")
def gelu_tanh(x):
    """GELU in its tanh form, x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2, up to 5e-4 from the exact one."""
    return keras.activations.gelu(x, approximate=True)


@keras.saving.register_keras_serializable(package="kseq")
class FeedForward(keras.layers.Layer):
    """FFN(x) = φ(x W_1 + b_1) W_2 + b_2, the same at every position.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), equation 2, with φ = ReLU; ViT has φ = GELU, x Φ(x) exactly.

    Args:
        hidden_dim: size of the hidden layer.
        activation: φ, a name or function of Keras; "gelu" is the exact one, "gelu_tanh" the other.
        dropout: share of the hidden values set to zero while training.
        use_bias: whether there are b_1 and b_2.
        kernel_initializer: of W_1 and W_2.
        bias_initializer: of b_1 and b_2.

    Input shape: `(batch, …, embed_dim)`.

    Output shape: the same.

    Raises:
        InputError: if an argument is out of range.
    """

    def __init__(
        self,
        hidden_dim: int,
        *,
        activation="gelu",
        dropout: float = 0.0,
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if hidden_dim < 1:
            raise InputError(f"hidden_dim {hidden_dim!r}: give 1 or more")
        if not 0 <= dropout < 1:
            raise InputError(f"dropout {dropout!r}: give a share from 0 to below 1")
        self.hidden_dim, self.dropout, self.use_bias = hidden_dim, dropout, use_bias
        self.activation = gelu_tanh if activation == "gelu_tanh" else keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.supports_masking = True

    def build(self, input_shape):
        embed_dim = input_shape[-1]
        self.expand = self._dense(self.hidden_dim, "expand")
        self.expand.build((None, embed_dim))
        self.contract = self._dense(embed_dim, "contract")
        self.contract.build((None, self.hidden_dim))
        self.drop = keras.layers.Dropout(self.dropout, dtype=self.dtype_policy, name="drop")
        self.built = True

    def _dense(self, units: int, name: str) -> Dense:
        return Dense(
            units,
            use_bias=self.use_bias,
            kernel_initializer=clone(self.kernel_initializer),
            bias_initializer=clone(self.bias_initializer),
            dtype=self.dtype_policy,
            name=name,
        )

    def call(self, inputs, training=None):
        hidden = self.expand(inputs)  # (batch, …, hidden_dim)
        exact_gelu = self.activation is keras.activations.gelu
        hidden = gelu(hidden, training=training) if exact_gelu else self.activation(hidden)
        return self.contract(self.drop(hidden, training=training))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {
            "hidden_dim": self.hidden_dim,
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }
