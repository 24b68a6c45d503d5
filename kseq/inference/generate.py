"""Text in, text out: translation, and texts continued, whole or piece by piece."""

from collections.abc import Iterator, Sequence
from itertools import islice

import keras
import numpy as np

from kseq.data.tokenizer import END, PADDING, START, Tokenizer, normalize
from kseq.errors import InputError, shorten
from kseq.inference.beam import beam_search
from kseq.inference.decoder import decoder
from kseq.inference.sampling import sample, stream

STEP = 8  # lengths of sources are rounded up to a multiple of it: few shapes to compile
ROUND = 32  # lengths of what is written are rounded up to a multiple of it, for the same reason
CONTEXT = 16  # tokens of a prompt that are read again with each new one, for the spaces between them
PARTIAL = "\N{REPLACEMENT CHARACTER}"  # the end of a text whose last character may not be complete


def translate(
    model,
    texts: Sequence[str],
    source_tokenizer: Tokenizer,
    target_tokenizer: Tokenizer,
    *,
    max_length: int = 64,
    source_length: int | None = None,
    beam_size: int = 4,
    length_penalty: float = 0.6,
    coverage_penalty: float = 0.0,
    batch_size: int = 32,
) -> list[str]:
    """The best translation of each text, by `beam_search`, in the order of the texts.

    Texts of like length are decoded together. An empty text is translated as any other: what comes is the model's.

    Args:
        model: a translator of `kseq.models`, or a decoder.
        texts: the sources; they are read in Unicode's form NFC.
        source_tokenizer: with which the model was trained.
        target_tokenizer: with which the model was trained.
        max_length: the most tokens of a translation, END counted.
        source_length: the most tokens of a source, of which the rest is not read; `None` reads all.
        beam_size: as in `beam_search`; 1 is `greedy`.
        length_penalty: as in `beam_search`.
        coverage_penalty: as in `beam_search`.
        batch_size: the most texts decoded together.

    Raises:
        InputError: if `texts` is a single text, a tokenizer has more tokens than the model knows, or as in
            `beam_search`.
    """
    if isinstance(texts, str):
        raise InputError(f"texts {shorten(texts)}: a single text; give a list of texts")
    if batch_size < 1:
        raise InputError(f"batch_size {batch_size}: give 1 or more")
    driven = _decoder(model)
    _check_vocabulary("source_tokenizer", source_tokenizer, getattr(driven, "source_vocabulary_size", None))
    _check_vocabulary("target_tokenizer", target_tokenizer, driven.vocabulary_size)
    texts = [normalize(text) for text in texts]
    if not texts:
        return []
    rows = source_tokenizer(texts, max_length=source_length)
    lengths = (rows != PADDING).sum(axis=1)
    order = np.argsort(lengths, kind="stable")
    translations = [""] * len(texts)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        hypotheses = beam_search(
            driven,
            _few_shapes(rows[batch], int(lengths[batch].max())),
            max_length,
            beam_size=beam_size,
            length_penalty=length_penalty,
            coverage_penalty=coverage_penalty,
        )
        found = target_tokenizer.detokenize(hypotheses.tokens[: len(batch), 0])
        for place, text in zip(batch, found, strict=True):
            translations[place] = text
    return translations


def continue_text(
    model,
    text: str,
    tokenizer: Tokenizer,
    *,
    max_length: int = 200,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    start: int | None = START,
    end: int | None = END,
) -> str:
    """What a language model writes behind `text`, which is not repeated.

    Args:
        model: a language model of `kseq.models`, or a decoder.
        text: what is continued, read in Unicode's form NFC; it may be empty where there is a `start`.
        tokenizer: with which the model was trained.
        max_length: the most tokens written.
        temperature: as in `sample`; 0 is `greedy`.
        top_k: as in `sample`.
        top_p: as in `sample`.
        seed: as in `sample`; the same seed, the same text.
        start: the token in front of the text, as in `sample`; `None` if the model was trained without one.
        end: as in `sample`; `None` if the model was trained on a text without ends.

    Raises:
        InputError: if the tokenizer has more tokens than the model knows, or as in `sample`.
    """
    driven, prompt, options = _prepared(model, text, tokenizer, max_length, start)
    options |= {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed, "end": end}
    hypotheses = sample(driven, np.zeros((1, 1), "int32"), prompt=prompt, **options)
    written = hypotheses.tokens[0, 0, prompt.shape[1] : hypotheses.lengths[0, 0]]
    return _written(tokenizer, prompt[0], written[:max_length])


def stream_text(
    model,
    text: str,
    tokenizer: Tokenizer,
    *,
    max_length: int = 200,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    start: int | None = START,
    end: int | None = END,
) -> Iterator[str]:
    """`continue_text` piece by piece, as it is written; the pieces together are the same text.

    A piece is held back while its last character may not be complete.

    Args:
        model: as in `continue_text`.
        text: as in `continue_text`.
        tokenizer: as in `continue_text`.
        max_length: as in `continue_text`.
        temperature: as in `continue_text`.
        top_k: as in `continue_text`.
        top_p: as in `continue_text`.
        seed: as in `continue_text`.
        start: as in `continue_text`.
        end: as in `continue_text`.

    Raises:
        InputError: as `continue_text`, when called.
    """
    driven, prompt, options = _prepared(model, text, tokenizer, max_length, start)
    options |= {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed, "end": end}
    tokens = islice(stream(driven, prompt[0], **options), max_length)

    def pieces():
        written, shown = [], ""
        for token in tokens:
            written.append(token)
            now = _written(tokenizer, prompt[0], written).rstrip(PARTIAL)
            if len(now) > len(shown) and now.startswith(shown):
                yield now[len(shown) :]
                shown = now
        rest = _written(tokenizer, prompt[0], written)[len(shown) :]
        if rest:
            yield rest

    return pieces()


def _decoder(model):
    return decoder(model) if isinstance(model, keras.Model) else model


def _prepared(model, text, tokenizer, max_length, start):
    """The decoder, the prompt `(1, tokens)`, and where to begin and how long to write, rounded up."""
    if max_length < 1:
        raise InputError(f"max_length {max_length}: give 1 or more")
    driven = _decoder(model)
    _check_vocabulary("tokenizer", tokenizer, driven.vocabulary_size)
    prompt = np.asarray(tokenizer([normalize(text)]))
    prompt = prompt[:, : int((prompt != PADDING).sum())]
    if start is None and not prompt.size:
        raise InputError("text '': there is nothing to begin with; give a text with a token, or a start")
    needed, context = prompt.shape[1] + max_length, getattr(driven, "context", None)
    length = -(-needed // ROUND) * ROUND
    if context is not None:
        length = max(needed, min(length, context if start is not None else context + 1))  # START is fed, the last not
    return driven, prompt, {"max_length": length, "start": start}


def _check_vocabulary(name, tokenizer, size: int | None):
    if size is not None and tokenizer.vocabulary_size > size:
        raise InputError(
            f"{name}: {tokenizer.vocabulary_size:,} tokens, the model knows {size:,}; give the one "
            "that the model was trained with"
        )


def _written(tokenizer, prompt, written) -> str:
    """The text of the tokens behind those of the prompt."""
    before = [int(token) for token in prompt[-CONTEXT:]]
    (whole,) = tokenizer.detokenize([before + [int(token) for token in written]])
    return whole[len(tokenizer.detokenize([before])[0]) :]


def _few_shapes(rows, length: int):
    """`rows` cut to `length` rounded up to a multiple of `STEP`, and filled up to a power of 2 with copies."""
    time, count = -(-max(length, 1) // STEP) * STEP, 1 << (len(rows) - 1).bit_length()
    rows = np.pad(rows, [(0, 0), (0, max(0, time - rows.shape[1]))])[:, :time]
    return rows[np.minimum(np.arange(count), len(rows) - 1)]
