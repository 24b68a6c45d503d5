"""Decoders small enough to know what they should find."""

from types import SimpleNamespace

import keras
import numpy as np
from keras import ops

from kseq.data.tokenizer import END, PADDING
from kseq.layers import TransformerDecoderBlock


class TableDecoder:
    """P(next | last token, position, source) from a table, and attention from another.

    The source is known by its first token; its padding is not looked at.
    """

    def __init__(self, vocabulary=6, length=4, sources=3, source_time=3, seed=0, scale=2.0):
        random = np.random.default_rng(seed)
        self.vocabulary_size = vocabulary
        self.logits = scale * random.normal(size=(sources, length, vocabulary, vocabulary)).astype("float32")
        self.looks = random.normal(size=(sources, length, vocabulary, source_time)).astype("float32")
        self.model = SimpleNamespace(variables=[keras.Variable(self.logits), keras.Variable(self.looks)])

    def begin(self, inputs, length):
        return (inputs[:, 0] % len(self.logits), inputs != PADDING), ()

    def step(self, tokens, index, state, constants):
        source, real = constants
        logits, looks = (
            ops.take(ops.reshape(table, (-1, table.shape[-1])), self._rows(table, source, index, tokens), axis=0)
            for table in self.model.variables
        )
        looks = ops.exp(looks) * ops.cast(real, "float32")
        return logits, state, looks / ops.maximum(ops.sum(looks, axis=-1, keepdims=True), 1e-9)

    @staticmethod
    def _rows(table, source, index, tokens):
        return (source * table.shape[1] + index) * table.shape[2] + tokens

    def log_probabilities(self, source, allowed):
        """NumPy's, `(length, last, next)`, −∞ where a token is not allowed."""
        logits = self.logits[source % len(self.logits)].astype("float64")
        logits[..., [t for t in range(self.vocabulary_size) if t not in allowed]] = -np.inf
        return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))

    def attention(self, row):
        """NumPy's, `(length, last, source_time)`, of a source `(source_time,)`."""
        looks = np.exp(self.looks[row[0] % len(self.looks)].astype("float64")) * (row != PADDING)
        return looks / looks.sum(axis=-1, keepdims=True)


class GRUDecoder:
    """A GRU over the mean of the source's embeddings, with random weights."""

    vocabulary_size = 12

    def __init__(self, units=8, seed=0):
        random = np.random.default_rng(seed)  # the same on every backend
        self.embedding = keras.layers.Embedding(self.vocabulary_size, units)
        self.cell = keras.layers.GRUCell(units)
        self.head = keras.layers.Dense(self.vocabulary_size)
        for layer, shape in ((self.embedding, (None,)), (self.cell, (None, 2 * units)), (self.head, (None, units))):
            layer.build(shape)
            layer.set_weights([random.normal(size=weight.shape) for weight in layer.get_weights()])
        layers = (self.embedding, self.cell, self.head)
        self.model = SimpleNamespace(variables=[variable for layer in layers for variable in layer.variables])

    def begin(self, inputs, length):
        real = ops.cast(inputs != PADDING, "float32")[..., None]
        mean = ops.sum(self.embedding(inputs) * real, axis=1) / ops.maximum(ops.sum(real, axis=1), 1.0)
        return (mean,), (ops.tanh(mean),)

    def step(self, tokens, index, state, constants):
        h, _ = self.cell(ops.concatenate([self.embedding(tokens), constants[0]], axis=-1), list(state))
        return self.head(h), (h,), None


def toy_transformer(vocabulary=10, dim=8, *, translates):
    """A functional model of one decoder block: of tokens, or of [source, target]."""
    embedding = keras.layers.Embedding(vocabulary, dim, mask_zero=True, name="embedding")
    block = TransformerDecoderBlock(num_heads=2, hidden_dim=16, name="block")
    head = keras.layers.Dense(vocabulary, name="head")
    tokens = keras.Input((None,), dtype="int32", name="target" if translates else "tokens")
    if not translates:
        return keras.Model(tokens, head(block(embedding(tokens))))
    source = keras.Input((None,), dtype="int32", name="source")
    memory = keras.layers.Embedding(vocabulary, dim, mask_zero=True, name="source_embedding")(source)
    return keras.Model([source, tokens], head(block(embedding(tokens), memory)))


class ToyTransformerDecoder:
    """`toy_transformer` with caches."""

    def __init__(self, model):
        self.model, self.vocabulary_size = model, model.output_shape[-1]
        self.block, self.embedding, self.head = map(model.get_layer, ("block", "embedding", "head"))

    def begin(self, inputs, length):
        constants = ()
        if self.block.has_memory:
            memory = self.model.get_layer("source_embedding")(inputs)
            constants = (self.block.project(memory), inputs != PADDING)
        return constants, (self.block.make_cache(ops.shape(inputs)[0], length),)

    def step(self, tokens, index, state, constants):
        memory_cache, memory_mask = constants or (None, None)
        x, cache = self.block(
            self.embedding(tokens[:, None]),
            cache=state[0],
            cache_update_index=index,
            memory_cache=memory_cache,
            memory_mask=memory_mask,
        )
        return ops.cast(self.head(x)[:, 0], "float32"), (cache,), None


class ScriptDecoder:
    """Decodes `script` and END, whatever it is fed; without a script, the source and END."""

    def __init__(self, vocabulary_size, script=None):
        self.vocabulary_size, self.script = vocabulary_size, script
        self.model = SimpleNamespace(variables=[])
        self.shapes = []

    def begin(self, inputs, length):
        self.shapes.append(tuple(inputs.shape))
        if self.script is None:
            return (ops.pad(ops.cast(inputs, "int32"), [(0, 0), (0, length)]),), ()
        script = np.zeros((1, length + len(self.script)), "int32")
        script[0, : len(self.script)] = self.script
        return (ops.convert_to_tensor(script),), ()

    def step(self, tokens, index, state, constants):
        wanted = ops.take(constants[0], index, axis=1)
        wanted = ops.where(wanted == PADDING, END, wanted)
        return 30 * ops.one_hot(wanted, self.vocabulary_size), state, None
