"""Texts as raw inputs of a language model: strings in, strings out, with the whole loop of sampling in the graph."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from kseq.data import END, PADDING, START, Tokenizer
from kseq.errors import InputError, shorten
from kseq.export.texts import random_texts, read_texts
from kseq.export.translation import Answer
from kseq.export.verification import BATCHES, check, check_outputs


class Continuation:
    """What a language model reads whose card has `"continuation"`, and what it answers; see `kseq.export.raw_input`.

    The card holds `{"tokenizer": Tokenizer.get_config(), "max_length": …}`, the most tokens of a text and its
    continuation together, and the `"temperature"`, `"start"` and `"end"` of `kseq.inference.sample`.

    Attributes:
        max_length: the most tokens, those given included.
        temperature: of the softmax that tokens are drawn from.
        seed: the same seed, the same continuation; `None` for another each time.
    """

    kind = "text"

    def __init__(self, card: dict):
        settings = dict(card["continuation"])
        self.tokenizer = Tokenizer(**settings.pop("tokenizer"))
        self.max_length = settings.pop("max_length")
        self.temperature = settings.pop("temperature", 1.0)
        self.seed = None
        self.ends = {"start": settings.pop("start", START), "end": settings.pop("end", END)}
        if settings:
            raise InputError(f"card: 'continuation' has no {', '.join(map(repr, settings))}; leave it out")

    def highest(self, name: str) -> int:
        """How many token numbers there are."""
        return self.tokenizer.vocabulary_size

    def read(self, arguments: list[str]) -> list[str]:
        """The texts, composed as Unicode's normal form C, if each leaves room for a continuation."""
        from kseq.inference.sampling import check_sampling

        texts = read_texts(arguments)
        check_sampling(self.temperature, None, None, self.seed)
        for text, row in zip(texts, self.tokenizer(texts), strict=True):
            count = int((row != PADDING).sum())
            if count >= self.max_length:
                raise InputError(
                    f"text {shorten(text)}: {count:,} tokens, and the model writes on up to {self.max_length:,} in "
                    "all; give a shorter one"
                )
            if not count and self.ends["start"] is None:
                raise InputError("text '': there is nothing to begin with; give a text")
        return texts

    def check(self, model, path: Path) -> None:
        """Raise `InputError` if the card of the file at `path` does not fit its model."""
        check_outputs(model, path)
        size, known = model.outputs[0].shape[-1], self.tokenizer.vocabulary_size
        if len(model.inputs) != 1 or len(model.outputs[0].shape) != 3 or size != known:
            raise InputError(
                f"{path}: its card is of a language model of {known} tokens, the model answers "
                f"{model.outputs[0].shape[1:]}; save it with another card"
            )

    def signatures(self, model) -> dict[str, tuple[list, Callable]]:
        """`serving_default`: strings `(batch,)`, a temperature and a seed to the texts continued, `text` `(batch,)`."""
        import tensorflow as tf

        from kseq.export.text_graph import TextGraph
        from kseq.inference import decoder, sample

        graph, steps = TextGraph(self.tokenizer), decoder(model)
        self.resources = [graph]
        message = f"texts: 1 to {self.max_length - 1} tokens each can be continued, got"
        least = 1 if self.ends["start"] is None else 0

        def go_on(texts: tf.Tensor, temperature: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
            tokens = graph.encode(texts)
            counts = tf.math.count_nonzero(tokens, axis=1)
            fits = tf.reduce_all((counts >= least) & (counts < self.max_length))
            with tf.control_dependencies([tf.debugging.Assert(fits, [message, counts])]):
                tokens = tf.pad(tokens, [(0, 0), (0, self.max_length)])[:, : self.max_length]
            tokens = tf.ensure_shape(tokens, (None, self.max_length))
            drawn = {"temperature": temperature, "seed": seed}
            found = sample(steps, tokens, self.max_length, prompt=tokens, **drawn, **self.ends)
            return {"text": graph.decode(found.tokens[:, 0])}

        specs = [
            tf.TensorSpec([None], tf.string, name="texts"),
            tf.TensorSpec([], tf.float32, name="temperature"),
            tf.TensorSpec([], tf.int32, name="seed"),
        ]
        return {"serving_default": (specs, go_on)}

    def verify(self, model, signatures: dict[str, Callable]) -> Iterator[dict]:
        """Compare the most probable continuations of a loaded SavedModel with those of `model`, letter by letter."""
        self.temperature, self.seed, kept = 0.0, 0, (self.temperature, self.seed)  # the seed decides between equals
        for batch in BATCHES:
            texts = [text.strip() or "a" for text in random_texts(self.tokenizer, batch)]
            got, expected = self.serve(signatures, texts, texts), self.answer(model, texts, texts)
            yield check("serving_default", (batch,), 0.0 if got == expected else float("inf"))
        self.temperature, self.seed = kept

    def serve(self, signatures: dict[str, Callable], raw: list[str], given: list[str]) -> list[Answer]:
        """The answers of a loaded SavedModel."""
        import tensorflow as tf

        seed = np.random.randint(2**31) if self.seed is None else self.seed
        arguments = {"texts": raw, "temperature": np.float32(self.temperature), "seed": np.int32(seed)}
        texts = signatures["serving_default"](**{name: tf.constant(x) for name, x in arguments.items()})["text"].numpy()
        return [Answer("continuation", text, answer.decode()) for text, answer in zip(given, texts, strict=True)]

    def answer(self, model, raw: list[str], given: list[str]) -> list[Answer]:
        """The answers of a Keras model."""
        from kseq.inference import decoder, sample
        from kseq.inference.sampling import COLDEST

        tokens = self.tokenizer(raw)
        drawn = {"temperature": max(self.temperature, COLDEST), "seed": self.seed}  # as the graph, which draws always
        rows = tokens[:, :1]  # they only say how many there are
        found = sample(decoder(model), rows, self.max_length, prompt=tokens, **drawn, **self.ends)
        texts = self.tokenizer.detokenize(found.tokens[:, 0])
        return [Answer("continuation", text, answer) for text, answer in zip(given, texts, strict=True)]

    def stream(self, model, text: str) -> Iterator[str]:
        """What a Keras model writes behind `text`, piece by piece."""
        from kseq.inference import stream_text

        room = self.max_length - int((self.tokenizer([text]) != PADDING).sum())
        drawn = {"temperature": self.temperature, "seed": self.seed}
        return stream_text(model, text, self.tokenizer, max_length=room, **drawn, **self.ends)
