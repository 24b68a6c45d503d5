"""Contributions add up to the logits, know nothing of padding, and are exact where the network is linear."""

from itertools import pairwise

import keras
import numpy as np
import pytest
from keras import ops

import kseq
from kseq.analysis import coloured_words, plot_words, word_attention, word_contributions
from kseq.errors import InputError

TOKENS = np.array([[4, 5, 6, 7, 8], [9, 4, 0, 0, 0]])


@pytest.fixture(scope="module")
def classifier() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = kseq.models.TextClassifier(10, 3, embed_dim=4, units=3, depth=1, embedding_dropout=0.5)
    for variable in model.trainable_variables:  # far enough from zero to be far from linear
        variable.assign(3 * keras.random.normal(variable.shape, stddev=0.3, seed=len(variable.path)))
    return model


def with_weights(model: keras.Model) -> keras.Model:
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def logits(model: keras.Model, vectors) -> np.ndarray:
    """The logits for the vectors of the tokens."""
    model = with_weights(model)
    rest = keras.Model([*model.inputs, model.get_layer("embedding").output], model.output)
    return ops.convert_to_numpy(rest([TOKENS, vectors], training=False))


def test_contributions_add_up_to_the_logit_of_the_class_against_the_others(classifier):
    vectors = ops.convert_to_numpy(classifier.get_layer("embedding")(TOKENS))
    z = logits(classifier, vectors) - logits(classifier, 0 * vectors)
    for target in ([0, 2], [1, 1]):
        others = (z.sum(axis=1) - z[[0, 1], target]) / 2
        sums = word_contributions(classifier, TOKENS, target, steps=64).sum(axis=1)
        np.testing.assert_allclose(sums, z[[0, 1], target] - others, atol=2e-3)
        assert np.abs(sums).max() > 0.1


def test_padding_adds_nothing_and_changes_nothing(classifier):
    values = word_contributions(classifier, TOKENS, 1, steps=4)
    assert (values[1, 2:] == 0).all()
    assert (values[TOKENS != 0] != 0).all()
    alone = word_contributions(classifier, TOKENS[1:, :2], 1, steps=4)
    np.testing.assert_allclose(alone, values[1:, :2], atol=1e-6)


def test_of_a_linear_network_they_are_the_products_with_its_weights():
    tokens = keras.Input((None,), dtype="int32")
    vectors = keras.layers.Embedding(10, 4, mask_zero=True, name="embedding")(tokens)
    outputs = keras.layers.Dense(2)(kseq.layers.SequencePooling("mean")(vectors))
    model = keras.Model(tokens, outputs)
    e, W = (ops.convert_to_numpy(model.layers[i].weights[0]) for i in (1, -1))
    expected = (e[TOKENS] @ (W[:, 1] - W[:, 0])) * (TOKENS != 0) / (TOKENS != 0).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(word_contributions(model, TOKENS, 1, steps=2), expected, atol=1e-6)


def test_attention_is_that_of_the_model_which_returns_it(classifier):
    twin = kseq.models.TextClassifier(10, 3, embed_dim=4, units=3, depth=1, return_attention=True)
    twin.set_weights(classifier.get_weights())
    weights = word_attention(classifier, TOKENS)
    np.testing.assert_allclose(weights, twin.predict(TOKENS, verbose=0)[1], atol=1e-6)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    assert (weights[1, 2:] == 0).all()


def test_the_model_can_be_saved_afterwards(classifier, tmp_path):
    word_attention(classifier, TOKENS)
    word_contributions(classifier, TOKENS, 0, steps=1)
    classifier.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(TOKENS, verbose=0), classifier.predict(TOKENS, verbose=0))


def rectangles(figure) -> list:
    return [patch for patch in figure.axes[0].patches if patch.get_width()]


def test_words_are_drawn_within_their_lines_and_do_not_overlap():
    words = [" the", " end", "ing", ",", *(f" word{i}" for i in range(30))]
    figure = plot_words([words, [" no"]], [np.linspace(-1, 1, 34), [0.5]], ["one", "two"], columns=40)
    boxes = [(patch.get_y(), patch.get_x(), patch.get_width()) for patch in rectangles(figure)]
    assert len(boxes) == 35
    for (line, left, width), (next_line, next_left, _) in pairwise(boxes):
        assert left + width <= 40
        assert next_line > line or next_left >= left + width
    assert boxes[2][1] == boxes[1][1] + 3  # "ing" goes on where "end" stopped
    drawn = [text.get_text() for text in figure.axes[0].texts]
    assert drawn == ["one", *(word.strip() for word in words), "two", "no"]
    colours = [patch.get_facecolor() for patch in rectangles(figure)]
    assert colours[0][0] > colours[0][2]  # against: red
    assert colours[33][2] > colours[33][0]  # for: blue


def test_the_terminal_shows_the_same_words():
    text = coloured_words([" good", " film", "s"], [1.0, -0.5, 0.0])
    assert text.plain == " good films"
    styles = [str(span.style) for span in text.spans]
    assert len(set(styles)) == 3
    assert all(style.startswith("black on rgb(") for style in styles)


@pytest.mark.parametrize(
    ("texts", "weights", "titles"),
    [([], [], []), ([["a"]], [[1.0, 2.0]], ["t"]), ([["a"]], [[1.0]], []), ([[]], [[]], ["t"])],
)
def test_what_cannot_be_drawn_is_an_error(texts, weights, titles):
    with pytest.raises(InputError, match="give the same number"):
        plot_words(texts, weights, titles)


def test_models_that_have_no_weights_to_show(classifier):
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(InputError, match="no attention pooling"):
        word_attention(plain, TOKENS)
    with pytest.raises(InputError, match="no layer 'embedding'"):
        word_contributions(plain, TOKENS, 0)
    with pytest.raises(InputError, match="3 logits"):
        word_contributions(classifier, TOKENS, [0, 3])
    with pytest.raises(InputError, match="steps 0"):
        word_contributions(classifier, TOKENS, 0, steps=0)
