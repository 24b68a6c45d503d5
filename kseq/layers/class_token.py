"""A learned token in front of a sequence, whose last state stands for the whole."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kseq")
class ClassToken(keras.layers.Layer):
    """Put a learned vector in front of the tokens: [x_class; x_1; …; x_N].

    Source: Dosovitskiy et al. 2021 (arXiv 2010.11929), equation 1; BERT's [CLS] (Devlin et al. 2019).

    Args:
        initializer: of x_class.

    Input shape: `(batch, tokens, embed_dim)`.

    Output shape: `(batch, 1 + tokens, embed_dim)`.

    Masking: the class token is always valid.
    """

    def __init__(self, *, initializer="zeros", **kwargs):
        super().__init__(**kwargs)
        self.initializer = keras.initializers.get(initializer)
        self.supports_masking = True

    def build(self, input_shape):
        self.token = self.add_weight(shape=(1, 1, input_shape[-1]), initializer=self.initializer, name="token")
        self.built = True

    def call(self, tokens):
        shape = (ops.shape(tokens)[0], 1, tokens.shape[-1])
        first = ops.broadcast_to(ops.cast(self.token, tokens.dtype), shape)
        return ops.concatenate([first, tokens], axis=1)  # (batch, 1 + tokens, embed_dim)

    def compute_mask(self, tokens, mask=None):
        return None if mask is None else ops.concatenate([ops.ones_like(mask[:, :1]), mask], axis=1)

    def compute_output_shape(self, input_shape):
        batch, tokens, embed_dim = input_shape
        return batch, None if tokens is None else tokens + 1, embed_dim

    def get_config(self):
        return super().get_config() | {"initializer": keras.initializers.serialize(self.initializer)}
