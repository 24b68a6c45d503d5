import numpy as np
import pytest

from kseq.training import classification_metrics, plot_confusion

NAMES = ("noun", "verb", "adverb")


def test_figures_by_hand():
    metrics = classification_metrics(np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 2, 2]), NAMES)
    assert metrics["accuracy"] == pytest.approx(4 / 6)
    assert metrics["confusion"] == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    f1 = [2 * 2 / (2 + 3), 2 * 1 / (2 + 2), 2 * 1 / (2 + 1)]  # 2 TP / (predicted + true)
    assert [metrics["classes"][name]["f1-score"] for name in NAMES] == pytest.approx(f1)
    assert metrics["macro_f1"] == pytest.approx(np.mean(f1))


def test_a_class_that_is_never_predicted_counts_as_zero():
    metrics = classification_metrics(np.array([0, 1, 2]), np.array([0, 0, 0]), NAMES)
    assert metrics["classes"]["verb"]["f1-score"] == 0
    assert metrics["macro_f1"] == pytest.approx(0.5 / 3)


def test_the_picture_shows_every_count():
    figure = plot_confusion(classification_metrics(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2]), NAMES))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["1\n50%", "1\n50%", "0\n0%", "0\n0%", "1\n100%", "0\n0%", "0\n0%", "0\n0%", "1\n100%"]
