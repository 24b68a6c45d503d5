import numpy as np
import pytest
from matplotlib.colors import to_rgb

from kseq.errors import InputError
from kseq.training.overlay import COLOURS
from kseq.training.ribbons import plot_ribbons

NAMES = ("preparation", "dissection", "clipping")
TRUE = [np.array([0, 0, 1, 1, 1, 2]), np.array([1, 1, 2, 2])]
ONLINE = [np.array([0, 1, 1, 1, 1, 2]), np.array([1, 1, 2, 2], "uint8")]
FRAMEWISE = [np.array([0, 1, 0, 2, 1, 2]), [1, 2, 1, 2]]


def test_every_ribbon_shows_its_phases():
    figure = plot_ribbons(TRUE, {"framewise": FRAMEWISE, "online": ONLINE}, NAMES, titles=("a", "b"))
    assert len(figure.axes) == 2
    for video, axis in enumerate(figure.axes):
        assert [label.get_text() for label in axis.get_yticklabels()] == ["truth", "framewise", "online"]
        assert axis.get_title(loc="left") == "ab"[video]
        for row, phases in enumerate((TRUE[video], FRAMEWISE[video], ONLINE[video])):
            picture = axis.images[row]
            expected = [to_rgb(COLOURS[phase]) for phase in phases]
            np.testing.assert_allclose(picture.get_array(), [expected])
            left, right, bottom, top = picture.get_extent()
            assert (left, right) == (0, len(phases))
            assert top < row < bottom  # the first row is above, as the axis runs downwards
        assert axis.get_ylim() == (2.5, -0.5)
        assert axis.get_xlim() == figure.axes[0].get_xlim()
    assert [text.get_text() for text in figure.axes[0].texts] == ["50.0%", "83.3%"]
    assert [text.get_text() for text in figure.axes[1].texts] == ["50.0%", "100.0%"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(NAMES)
    assert figure.axes[1].get_xlabel() == "frame"


def test_time_in_minutes():
    figure = plot_ribbons(TRUE, {}, NAMES, frame_rate=0.05)
    assert figure.axes[0].images[0].get_extent()[:2] == [0, 2]  # 6 frames of 20 seconds
    assert figure.axes[1].get_xlabel() == "minutes"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], {}, NAMES), "true: no videos"),
        (([TRUE[0], TRUE[1][:0]], {}, NAMES), "true: no videos, or one without frames"),
        ((TRUE, {"online": ONLINE[:1]}, NAMES), "online: phases of shapes"),
        ((TRUE, {"online": ONLINE[::-1]}, NAMES), "online: phases of shapes"),
        ((TRUE, {"online": ONLINE}, NAMES[:2]), "true: give phases as integers from 0 to 1"),
        (([phases + 0.5 for phases in TRUE], {"true": TRUE}, NAMES), "true: give phases as integers"),
        ((TRUE, {"online": [phases / 1.0 for phases in TRUE]}, NAMES), "online: give phases as integers"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        plot_ribbons(*arguments)
    with pytest.raises(InputError, match="titles: 1 for 2 videos"):
        plot_ribbons(TRUE, {}, NAMES, titles=("a",))
    with pytest.raises(InputError, match="frame_rate 0"):
        plot_ribbons(TRUE, {}, NAMES, frame_rate=0)
