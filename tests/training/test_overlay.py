import numpy as np
import pytest
from matplotlib.colors import to_rgb

from kseq.errors import InputError
from kseq.training import plot_overlays
from kseq.training.overlay import COLOURS

IMAGES = np.random.default_rng(0).integers(0, 200, (2, 12, 16, 1)).astype("uint8")
TRUTHS, PREDICTIONS = np.zeros((2, 2, 12, 16), "uint8")
TRUTHS[0, 2:6, 3:9], PREDICTIONS[0, 3:6, 3:9], TRUTHS[1, 5:8, 5:8] = 1, 1, 2


def test_every_panel_shows_its_labels():
    figure = plot_overlays(IMAGES, TRUTHS, PREDICTIONS, ("tissue", "core", "rim"), opacity=1.0, titles=("a", "b"))
    panels = np.array(figure.axes).reshape(2, 3)
    for row in range(2):
        for panel, labels in zip(panels[row, 1:], (TRUTHS[row], PREDICTIONS[row]), strict=True):
            picture = panel.images[0].get_array()
            for index in (1, 2):
                shown = np.isclose(picture, to_rgb(COLOURS[index - 1])).all(axis=-1)
                np.testing.assert_array_equal(shown, labels == index)
        grey = panels[row, 0].images[0].get_array()
        assert np.ptp(grey, axis=-1).max() == 0
    assert [panel.get_title() for panel in panels[0]] == ["image", "truth", "prediction"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["core", "rim", "outline of the truth"]
    outline = panels[0, 2].collections[-1].get_segments()  # of the truth: a box of 4 x 6 pixels
    ends = np.array(outline).reshape(-1, 2)
    assert len(outline) == 2 * (4 + 6)
    assert ends.min(axis=0).tolist() == [2.5, 1.5]
    assert ends.max(axis=0).tolist() == [8.5, 5.5]


def test_colour_images_without_predictions():
    images = np.repeat(IMAGES, 3, axis=-1).astype("float32")
    truths = np.where(np.arange(16) < 3, 255, TRUTHS)
    figure = plot_overlays(images, truths, None, ("tissue", "core", "rim"), ignore_label=255)
    assert len(figure.axes) == 4
    assert figure.legends[0].get_texts()[-1].get_text() == "rim"
    with pytest.raises(InputError, match="of volumes give slices"):
        plot_overlays(images, TRUTHS[:, 1:], None, ("tissue", "core", "rim"))
