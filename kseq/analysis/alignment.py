"""Which word of the source a translator looked at for each word that it wrote."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kseq.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARK = "▁"  # in front of a piece: a space


def word_alignment(
    weights, source_pieces: Sequence[str], target_pieces: Sequence[str]
) -> tuple[np.ndarray, list[str], list[str]]:
    """Attention between pieces of words as attention between words.

    The weight of a source word is the sum of the weights of its pieces, that of a target word the mean over its pieces
    (Clark et al. 2019, section 4.1): if the weights of each target piece sum to one, so do those of each target word.
    Punctuation marks and apostrophes are words of their own.

    Args:
        weights: `(target_time, source_time)`: row t says where the decoder looked when it chose target piece t. What
            stands behind the last pieces is not read, such as padding.
        source_pieces: of a subword `kseq.data.Tokenizer`, `tokenizer.vocabulary[number]` of each token. Those that
            begin with "##" go on with the word before, a "▁" in front is a space. Words without either stay as they
            are.
        target_pieces: the same of the target.

    Returns:
        The weights `(target_words, source_words)`, the source words, the target words.

    Raises:
        InputError: if a side has no piece, or the weights are no table of at least as many rows and columns as there
            are pieces.

    Source: Clark, Khandelwal, Levy & Manning, "What does BERT look at?", BlackboxNLP 2019 (arXiv 1906.04341).
    """
    weights = np.asarray(weights, "float64")
    pieces = len(target_pieces), len(source_pieces)
    if 0 in pieces:
        raise InputError(f"source_pieces, target_pieces: {pieces[1]} and {pieces[0]}; give at least one of each")
    if weights.ndim != 2 or weights.shape[0] < pieces[0] or weights.shape[1] < pieces[1]:
        raise InputError(
            f"weights of shape {weights.shape}: {pieces[0]} target and {pieces[1]} source pieces; give a table "
            "(target_time, source_time) with a row and a column for each"
        )
    target_starts, target_words = _words(target_pieces)
    source_starts, source_words = _words(source_pieces)
    sums = np.add.reduceat(weights[: pieces[0], : pieces[1]], source_starts, axis=1)
    counts = np.diff([*target_starts, pieces[0]])
    return np.add.reduceat(sums, target_starts, axis=0) / counts[:, None], source_words, target_words


def plot_alignment(
    weights, source_pieces: Sequence[str], target_pieces: Sequence[str], *, axis: "Axes", title: str = ""
) -> np.ndarray:
    """Draw `word_alignment` as a heat map: target words down, source words across, white is 0 and black is 1.

    The manner of figure 3 of Bahdanau, Cho & Bengio 2015 (arXiv 1409.0473), with the colours the other way round.

    Args:
        weights: as in `word_alignment`.
        source_pieces: as in `word_alignment`.
        target_pieces: as in `word_alignment`.
        axis: of matplotlib.
        title: above it.

    Returns:
        The weights that are drawn, `(target_words, source_words)`.

    Raises:
        InputError: as `word_alignment`.
    """
    weights, source_words, target_words = word_alignment(weights, source_pieces, target_pieces)
    axis.imshow(weights, cmap="Greys", vmin=0, vmax=1, interpolation="nearest", aspect="equal")
    axis.set_xticks(range(len(source_words)), source_words, rotation=90)
    axis.set_yticks(range(len(target_words)), target_words)
    axis.tick_params(length=0, labeltop=True, labelbottom=False)
    axis.set_title(title)
    return weights


def _words(pieces: Sequence[str]) -> tuple[list[int], list[str]]:
    """Where words begin, and the words."""
    starts = [i for i, piece in enumerate(pieces) if i == 0 or not piece.startswith("##")]
    ends = [*starts[1:], len(pieces)]
    words = [
        "".join(piece.removeprefix("##") for piece in pieces[start:end]).removeprefix(_MARK)
        for start, end in zip(starts, ends, strict=True)
    ]
    return starts, words
