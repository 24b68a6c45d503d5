"""What the blocks of a transformer share: their arguments, and the residual and normalisation around each branch."""

import keras
from keras import layers

from kseq.backend.remat import remat
from kseq.errors import InputError
from kseq.layers.attention import MultiHeadAttention
from kseq.layers.feed_forward import FeedForward, gelu_tanh
from kseq.layers.initializers import clone
from kseq.layers.layer_normalization import LayerNormalization


class TransformerBlock(layers.Layer):
    """Branches f, each added to its input: x + f(LN(x)) with `norm_first`, else LN(x + f(x)).

    LN(x) = γ (x − μ) / √(σ² + ε) + β with the mean μ and variance σ² of the last axis.
    """

    def __init__(
        self,
        num_heads: int,
        hidden_dim: int,
        *,
        norm_first: bool = True,
        activation="gelu",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: float = 0.0,
        use_bias: bool = True,
        epsilon: float = 1e-6,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        remat: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        for argument, size in (("num_heads", num_heads), ("hidden_dim", hidden_dim)):
            if size < 1:
                raise InputError(f"{argument} {size!r}: give 1 or more")
        shares = {"dropout": dropout, "attention_dropout": attention_dropout, "drop_path": drop_path}
        for argument, share in shares.items():
            if not 0 <= share < 1:
                raise InputError(f"{argument} {share!r}: give a share from 0 to below 1")
        if remat and (dropout or attention_dropout):
            raise InputError(
                f"remat True with dropout {dropout!r} and attention_dropout {attention_dropout!r}: the branch computed "
                "again would drop other values; set both to 0 (drop_path is allowed), or remat=False"
            )
        self.num_heads, self.hidden_dim, self.norm_first = num_heads, hidden_dim, norm_first
        self.dropout, self.attention_dropout, self.drop_path = dropout, attention_dropout, drop_path
        self.use_bias, self.epsilon, self.remat = use_bias, epsilon, remat
        self.activation = gelu_tanh if activation == "gelu_tanh" else keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.norms, self.drops, self.paths = {}, {}, {}  # by the name of the branch
        self.supports_masking = True
        self.autocast = False  # of a bias for the attention; the tokens are cast where they come in

    def _add_attention(self, name: str, shape, *others) -> MultiHeadAttention:
        attention = MultiHeadAttention(
            self.num_heads, dropout=self.attention_dropout, **self._products(), dtype=self.dtype_policy, name=name
        )
        attention.build(shape, *others)
        self._surround(name, shape)
        return attention

    def _add_feed_forward(self, name: str, shape) -> FeedForward:
        network = FeedForward(
            self.hidden_dim,
            activation=self.activation,
            dropout=self.dropout,
            **self._products(),
            dtype=self.dtype_policy,
            name=name,
        )
        network.build(shape)
        self._surround(name, shape)
        return network

    def _products(self) -> dict:
        return {
            "use_bias": self.use_bias,
            "kernel_initializer": clone(self.kernel_initializer),
            "bias_initializer": clone(self.bias_initializer),
        }

    def _surround(self, name: str, shape) -> None:
        """Add the normalisation of a branch, and what drops its output: values, and for some samples all of it.

        The latter is stochastic depth (Huang et al. 2016, arXiv 1603.09382), scaled as dropout is.
        """
        norm = LayerNormalization(epsilon=self.epsilon, dtype=self.dtype_policy, name=f"{name}_norm")
        norm.build(shape)
        self.norms[name] = norm
        self.drops[name] = layers.Dropout(self.dropout, dtype=self.dtype_policy, name=f"{name}_drop")
        noise_shape = (None,) + (1,) * (len(shape) - 1)
        self.paths[name] = layers.Dropout(self.drop_path, noise_shape, dtype=self.dtype_policy, name=f"{name}_path")

    def _residual(self, name: str, x, tensors=None, *, training=None, **arguments):
        """The branch of this name around `x`, and what else it returns.

        `tensors` are arguments of the branch through which a gradient flows, `arguments` the others.
        """
        branch, norm = getattr(self, name), self.norms[name]
        tensors = {key: value for key, value in (tensors or {}).items() if value is not None}

        def compute(x, *values):
            x = norm(x) if self.norm_first else x
            return branch(x, **dict(zip(tensors, values, strict=True)), **arguments, training=training)

        outputs = (remat(compute) if self.remat and training else compute)(x, *tensors.values())
        y, *more = outputs if isinstance(outputs, tuple) else (outputs,)
        if training:  # layers that do nothing cost PyTorch 10 µs each
            y = self.drops[name](y, training=training) if self.dropout else y
            y = self.paths[name](y, training=training) if self.drop_path else y
        x = x + y
        return (x if self.norm_first else norm(x)), *more

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {
            "num_heads": self.num_heads,
            "hidden_dim": self.hidden_dim,
            "norm_first": self.norm_first,
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "drop_path": self.drop_path,
            "use_bias": self.use_bias,
            "epsilon": self.epsilon,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "remat": self.remat,
        }
