"""Texts as raw inputs of a classifier: the graph that reads them, and the texts that verify it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kseq.data import Tokenizer
from kseq.data.tokenizer import normalize
from kseq.errors import InputError
from kseq.export.classification import Classification, Trial
from kseq.export.verification import BATCHES, check_vocabulary


class Texts(Classification):
    """What a classifier reads whose card has `"texts"`: `{"tokenizer": Tokenizer.get_config(), "max_length": …}`.

    See `kseq.export.raw_input`. Of a longer text the first `max_length` tokens are read; `None` reads all.
    """

    kind = "text"
    shape = (None,)

    def __init__(self, card: dict):
        super().__init__(card)
        self.tokenizer = Tokenizer(**card["texts"]["tokenizer"])
        self.max_length = card["texts"].get("max_length")

    def highest(self, name: str) -> int:
        """How many token numbers there are."""
        return self.tokenizer.vocabulary_size

    def check(self, model, path: Path) -> None:
        """Raise `InputError` if the card of the file at `path` does not fit its model."""
        super().check(model, path)
        check_vocabulary(model, "embedding", self.tokenizer.vocabulary_size, path)

    def read(self, arguments: list[str]) -> list[str]:
        """The texts, composed as Unicode's normal form C."""
        return read_texts(arguments)

    def encode(self, texts: list[str]) -> np.ndarray:
        """Model inputs `(texts, time)`."""
        return self.tokenizer(texts, max_length=self.max_length)

    def graphs(self) -> dict:
        """`serving_default`: strings `(batch,)`."""
        import tensorflow as tf

        from kseq.export.text_graph import TextGraph

        graph = TextGraph(self.tokenizer)
        self.resources = [graph]

        def encode(texts: tf.Tensor) -> tf.Tensor:
            return graph.encode(texts, max_length=self.max_length)

        return {"serving_default": (tf.TensorSpec([None], tf.string, name="texts"), encode)}

    def trials(self) -> Iterator[Trial]:
        """Texts of random tokens, and an empty one, at two batch sizes."""
        for batch in BATCHES:
            texts = random_texts(self.tokenizer, batch)
            yield Trial("serving_default", (batch,), texts, self.encode(texts))


def read_texts(arguments: list[str]) -> list[str]:
    """The texts, composed as Unicode's normal form C, which a graph cannot do; bytes that are no UTF-8 read as "�"."""
    if not arguments:
        raise InputError("texts: none given; give at least one, in quotation marks")
    # Such bytes come from a shell as halves of surrogate pairs, which TensorFlow refuses.
    whole = (text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in arguments)
    return [normalize(text) for text in whole]


def random_texts(tokenizer: Tokenizer, count: int) -> list[str]:
    """`count` texts of random tokens; of several the first is empty and the second has an unknown character."""
    random = np.random.default_rng(1)
    first = min(4, tokenizer.vocabulary_size - 1)
    rows = [random.integers(first, tokenizer.vocabulary_size, size) for size in random.integers(1, 20, count)]
    texts = tokenizer.detokenize(rows)
    return texts if count < 3 else ["", f"{texts[1]} \N{SNOWMAN}", *texts[2:]]
