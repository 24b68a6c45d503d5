import re

import numpy as np
import pytest
from matplotlib.figure import Figure

from kseq.analysis import plot_alignment, word_alignment
from kseq.data import Tokenizer
from kseq.errors import InputError

SOURCE = ["▁Noa", "##h", "▁wal", "##ke", "##d", "."]
TARGET = ["▁No", "##é", "▁marcha", "."]


@pytest.fixture
def weights() -> np.ndarray:
    """Of four target pieces for six source pieces, and of what stands behind them."""
    weights = np.random.default_rng(0).uniform(size=(6, 9))
    weights[:, 6:] = 0
    return weights / weights.sum(axis=1, keepdims=True)


def test_source_pieces_are_summed_and_target_pieces_averaged(weights):
    words, source, target = word_alignment(weights, SOURCE, TARGET)
    assert source == ["Noah", "walked", "."]
    assert target == ["Noé", "marcha", "."]
    columns, rows = [[0, 1], [2, 3, 4], [5]], [[0, 1], [2], [3]]
    for i, j in np.ndindex(3, 3):
        expected = sum(weights[row, column] for row in rows[i] for column in columns[j]) / len(rows[i])
        assert words[i, j] == pytest.approx(expected)
    np.testing.assert_allclose(words.sum(axis=1), 1)


def test_whole_words_stay_as_they_are(weights):
    words, source, target = word_alignment(weights, ["l'homme", "est", "là"], ["man"])
    np.testing.assert_array_equal(words, weights[:1, :3])
    assert (source, target) == (["l'homme", "est", "là"], ["man"])


def test_the_pieces_of_a_tokenizer_read_as_its_text(weights):
    text = "Noah walked, and Noah's sons walked."
    tokenizer = Tokenizer.train([text], "subword", 60)
    pieces = [tokenizer.vocabulary[number] for number in tokenizer([text])[0]]
    weights = np.eye(len(pieces))
    _, words, _ = word_alignment(weights, pieces, pieces)
    assert words == ["Noah", "walked", ",", "and", "Noah", "'", "s", "sons", "walked", "."]


def test_the_picture_has_a_row_a_target_word_and_a_column_a_source_word(weights):
    axis = Figure().subplots()
    drawn = plot_alignment(weights, SOURCE, TARGET, axis=axis, title="attention")
    (image,) = axis.images
    np.testing.assert_array_equal(image.get_array(), drawn)
    assert drawn.shape == (3, 3)
    assert image.get_clim() == (0, 1)
    assert [label.get_text() for label in axis.get_xticklabels()] == ["Noah", "walked", "."]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["Noé", "marcha", "."]
    assert axis.get_ylim() == (2.5, -0.5)  # the first word is above
    axis.figure.canvas.draw()


@pytest.mark.parametrize(
    ("shape", "source", "target", "message"),
    [
        ((2, 3), [], ["a"], "source_pieces, target_pieces: 0 and 1; give at least one of each"),
        ((1, 2), ["a"], ["a", "b"], "weights of shape (1, 2): 2 target and 1 source pieces; give a table"),
        ((2, 1), ["a", "b"], ["a"], "weights of shape (2, 1): 1 target and 2 source pieces"),
        ((1, 2, 2), ["a"], ["a"], "weights of shape (1, 2, 2): 1 target and 1 source pieces"),
    ],
)
def test_bad_arguments(shape, source, target, message):
    with pytest.raises(InputError, match=re.escape(message)):
        word_alignment(np.ones(shape), source, target)
