"""Texts as raw inputs of a translator: strings in, strings out, with the whole beam search in the graph."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kseq.data import Tokenizer
from kseq.errors import InputError
from kseq.export.texts import random_texts, read_texts
from kseq.export.verification import BATCHES, check, check_outputs, check_vocabulary

SEARCH = {"beam_size", "length_penalty", "coverage_penalty"}  # what a card may say of `kseq.inference.beam_search`


@dataclass(frozen=True)
class Answer:
    """The text that answers a text.

    Attributes:
        kind: "translation" or "continuation".
        given: the text as it was given.
        text: the answer.
    """

    kind: str
    given: str
    text: str


class Translation:
    """What a translator reads whose card has `"translation"`, and what it answers; see `kseq.export.raw_input`.

    The card holds `{"source": Tokenizer.get_config(), "target": …, "max_length": …}`, the most tokens of a source and
    of a translation, and the `"beam_size"` and `"length_penalty"` of `kseq.inference.beam_search`.
    """

    kind = "text"

    def __init__(self, card: dict):
        settings = dict(card["translation"])
        self.source, self.target = (Tokenizer(**settings.pop(side)) for side in ("source", "target"))
        self.max_length = settings.pop("max_length")
        if unknown := set(settings) - SEARCH:
            raise InputError(
                f"card: 'translation' has {', '.join(map(repr, sorted(unknown)))}; besides source, target and "
                f"max_length it may have {', '.join(sorted(SEARCH))}"
            )
        self.search = settings

    def highest(self, name: str) -> int:
        """How many token numbers the language of this input has."""
        return (self.source if name == "source" else self.target).vocabulary_size

    def read(self, arguments: list[str]) -> list[str]:
        """The texts, composed as Unicode's normal form C."""
        return read_texts(arguments)

    def check(self, model, path: Path) -> None:
        """Raise `InputError` if the card of the file at `path` does not fit its model."""
        check_outputs(model, path)
        names, size = [tensor.name for tensor in model.inputs], model.outputs[0].shape[-1]
        if names != ["source", "target"] or size != self.target.vocabulary_size:
            raise InputError(
                f"{path}: its card is of a translator into {self.target.vocabulary_size} tokens, the model reads "
                f"{', '.join(names)} and answers {size} logits; save it with another card"
            )
        for layer in ("embedding", "source_embedding"):
            check_vocabulary(model, layer, self.source.vocabulary_size, path)

    def signatures(self, model) -> dict[str, tuple[list, Callable]]:
        """`serving_default`: strings `(batch,)` to their translations, `text` `(batch,)`."""
        import tensorflow as tf

        from kseq.export.text_graph import TextGraph
        from kseq.inference import beam_search, decoder

        source, target = TextGraph(self.source), TextGraph(self.target)
        self.resources, steps = [source, target], decoder(model)

        def translate(texts: tf.Tensor) -> dict[str, tf.Tensor]:
            tokens = source.encode(texts, max_length=self.max_length)
            found = beam_search(steps, tokens, self.max_length, **self.search)
            return {"text": target.decode(found.tokens[:, 0])}

        return {"serving_default": ([tf.TensorSpec([None], tf.string, name="texts")], translate)}

    def verify(self, model, signatures: dict[str, Callable]) -> Iterator[dict]:
        """Compare the translations of a loaded SavedModel with those of `model`, letter by letter."""
        for batch in BATCHES:
            texts = random_texts(self.source, batch)
            got, expected = self.serve(signatures, texts, texts), self.answer(model, texts, texts)
            yield check("serving_default", (batch,), 0.0 if got == expected else float("inf"))

    def serve(self, signatures: dict[str, Callable], raw: list[str], given: list[str]) -> list[Answer]:
        """The answers of a loaded SavedModel."""
        import tensorflow as tf

        answers = signatures["serving_default"](tf.constant(raw))["text"].numpy()
        return [Answer("translation", text, answer.decode()) for text, answer in zip(given, answers, strict=True)]

    def answer(self, model, raw: list[str], given: list[str]) -> list[Answer]:
        """The answers of a Keras model."""
        from kseq.inference import translate

        lengths = {"max_length": self.max_length, "source_length": self.max_length}
        answers = translate(model, raw, self.source, self.target, **lengths, **self.search)
        return [Answer("translation", text, answer) for text, answer in zip(given, answers, strict=True)]
