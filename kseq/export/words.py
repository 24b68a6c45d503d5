"""Words as raw inputs: the graph that reads them, the words that verify it, and what `kseq predict` reads."""

from collections.abc import Iterator

import numpy as np

from kseq.data import CharacterEncoder
from kseq.errors import InputError
from kseq.export.classification import Classification, Trial
from kseq.export.verification import BATCHES, LENGTHS


class Words(Classification):
    """What a model reads whose card has the `"characters"` of a `CharacterEncoder`; see `kseq.export.raw_input`."""

    kind = "word"

    def __init__(self, card: dict):
        super().__init__(card)
        self.encoder = CharacterEncoder(**card["characters"])
        self.shape = (self.encoder.max_length,)
        self.lengths = (min(LENGTHS[0], self.encoder.max_length), self.encoder.max_length)

    def highest(self, name: str) -> int:
        """How many character numbers there are."""
        return self.encoder.vocabulary_size

    def read(self, arguments: list[str]) -> list[str]:
        """The words, if all of them can be read."""
        if not arguments:
            raise InputError("words: none given; give at least one")
        self.encoder(arguments)
        return arguments

    def encode(self, words: list[str]) -> np.ndarray:
        """Model inputs `(words, max_length)`."""
        return self.encoder(words)

    def graphs(self) -> dict:
        """`serving_default`: strings `(batch,)`."""
        import tensorflow as tf

        return {"serving_default": (tf.TensorSpec([None], tf.string, name="words"), character_graph(self.encoder))}

    def trials(self) -> Iterator[Trial]:
        """Random words at two batch sizes and two lengths."""
        longest = self.encoder.max_length
        for batch, length in zip(BATCHES, (longest, max(1, longest // 2)), strict=True):
            words = random_words(self.encoder, batch, length)
            yield Trial("serving_default", (batch, length), words, self.encoder(words))


def character_graph(encoder: CharacterEncoder):
    """`encoder` as TensorFlow operations; a word that it refuses fails with InvalidArgumentError."""
    import tensorflow as tf

    codes, numbers = np.array(sorted((ord(c), n) for c, n in encoder.numbers.items()), dtype="int32").T

    def encode(words: tf.Tensor) -> tf.Tensor:
        # In a message a word must be valid UTF-8, or TensorFlow fails to raise it, and short.
        shown = tf.strings.substr(tf.strings.unicode_transcode(words, "UTF-8", "UTF-8"), 0, 40, unit="UTF8_CHAR")
        points = tf.strings.unicode_decode(words, "UTF-8")  # ragged (batch, characters)
        places = tf.minimum(tf.searchsorted(codes, points.flat_values), len(codes) - 1)
        known = tf.reduce_all(tf.gather(codes, places) == points.flat_values)
        lengths = points.row_lengths()
        fits = tf.reduce_all((lengths >= 1) & (lengths <= encoder.max_length))
        checks = [
            tf.debugging.Assert(known, [f"words: only the characters {encoder.characters} can be read, got", shown]),
            tf.debugging.Assert(fits, [f"words: 1 to {encoder.max_length} characters each can be read, got", shown]),
        ]
        with tf.control_dependencies(checks):  # so that nothing behind them fails first, in words of its own
            return points.with_flat_values(tf.gather(numbers, places)).to_tensor(0)

    return encode


def random_words(encoder: CharacterEncoder, count: int, longest: int) -> list[str]:
    """`count` words of random characters, one of them `longest` characters long."""
    random = np.random.default_rng(1)
    lengths = [longest, *random.integers(1, longest + 1, count - 1)]
    return ["".join(random.choice(list(encoder.characters), length)) for length in lengths]
