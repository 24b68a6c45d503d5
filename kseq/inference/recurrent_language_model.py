"""A recurrent language model one token at a time."""

import keras
from keras import ops

from kseq.errors import InputError
from kseq.layers.recurrent import Recurrence


class RecurrentLanguageModelDecoder:
    """Steps a recurrent `kseq.models.LanguageModel`: its state is h, for an LSTM h and c, of each layer.

    A stateful model starts from zeros like any other; the states it carries in training are left alone.

    Args:
        model: the language model, built or loaded.

    Attributes:
        model: the same.
        vocabulary_size: the number of its logits.
        source_vocabulary_size: `None`, for it reads no source.

    Raises:
        InputError: if it is another model.
    """

    source_vocabulary_size = None

    def __init__(self, model: keras.Model):
        layers = {layer.name: layer for layer in model.layers}
        levels = (layers.get(f"recurrent_{level}") for level in range(len(layers)))
        self.layers = [layer for layer in levels if isinstance(layer, Recurrence)]
        if "pooling" in layers or not {"tokens", "embedding", "recurrent_0"} <= set(layers) or not self.layers:
            raise InputError(
                f"model {model.name!r}: no recurrent language model; give one of kseq.models.LanguageModel"
            )
        self.model, self.vocabulary_size = model, model.outputs[0].shape[-1]
        self.embedding = layers["embedding"]
        self.projection, self.logits = layers.get("projection"), layers.get("logits")

    def begin(self, inputs, length):
        """No constants, and states of zeros for as many rows as `inputs` has: see `kseq.inference.Decoder`."""
        batch = ops.shape(inputs)[0]
        sizes = [(layer, size) for layer in self.layers for size in _sizes(layer)]
        return (), tuple(ops.zeros((batch, size), layer.compute_dtype) for layer, size in sizes)

    def step(self, tokens, index, state, constants):
        """The logits behind `tokens`; `index` does not matter: see `kseq.inference.Decoder`."""
        x = self.embedding(tokens[:, None])[:, 0]  # (batch, embed_dim), and no mask, which a cell would warn of
        states, new = list(state), []
        for layer in self.layers:
            own = [states.pop(0) for _ in _sizes(layer)]
            x, own = layer.cell(x, own, training=False)
            new += own
        if self.logits is not None:
            logits = self.logits(x)
        else:
            logits = self.embedding(x if self.projection is None else self.projection(x), reverse=True)
        return ops.cast(logits, "float32"), tuple(new), None


def _sizes(layer) -> list[int]:
    size = layer.cell.state_size
    return list(size) if isinstance(size, (list, tuple)) else [size]
