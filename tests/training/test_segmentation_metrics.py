import json

import numpy as np
import pytest

from kseq.errors import InputError
from kseq.training import plot_segmentation, segmentation_metrics, segmentation_table
from kseq.training.surface_distance import surface

random = np.random.default_rng(0)
NAMES = ("background", "one", "two")


def by_all_pairs(true, predicted, spacing, tolerance):
    """The five figures by a loop over pixels and all pairs of surface points."""

    def points(mask):
        found = []
        for at in np.ndindex(mask.shape):
            if not mask[at]:
                continue
            around = [
                tuple(np.add(at, sign * np.eye(mask.ndim, dtype=int)[axis]))
                for axis in range(mask.ndim)
                for sign in (1, -1)
            ]
            outside = [min(p) < 0 or any(a >= n for a, n in zip(p, mask.shape, strict=True)) for p in around]
            if any(out or not mask[p] for p, out in zip(around, outside, strict=True)):
                found.append(np.multiply(at, spacing))
        return np.array(found)

    one, other = points(true), points(predicted)
    distances = np.sqrt(((one[:, None] - other[None]) ** 2).sum(axis=-1))
    there, back = distances.min(axis=1), distances.min(axis=0)
    both = (true & predicted).sum()
    return {
        "dice": 2 * both / (true.sum() + predicted.sum()),
        "iou": both / (true | predicted).sum(),
        "hd95": max(np.percentile(there, 95), np.percentile(back, 95)),
        "assd": (there.sum() + back.sum()) / (len(there) + len(back)),
        "surface_dice": ((there <= tolerance).sum() + (back <= tolerance).sum()) / (len(there) + len(back)),
    }


@pytest.mark.parametrize(
    ("space", "spacing"), [((9, 11), (1.0, 1.0)), ((9, 7), (0.5, 2.0)), ((6, 5, 7), (3.0, 1.0, 0.8))]
)
def test_figures_are_those_of_all_pairs_of_surface_points(space, spacing):
    truth, prediction = random.choice(3, (2, 2, *space), p=(0.6, 0.2, 0.2))
    truth[:, 1:5, 1:5], prediction[:, 2:6, 1:5] = 1, 1  # something with an inside
    metrics = segmentation_metrics(truth, prediction, NAMES, spacing, tolerance=1.0)
    for index, name in ((1, "one"), (2, "two")):
        rows = [by_all_pairs(t == index, p == index, spacing, 1.0) for t, p in zip(truth, prediction, strict=True)]
        for figure in rows[0]:
            wanted = [row[figure] for row in rows]
            assert metrics["images"][name][figure] == pytest.approx(wanted, rel=1e-9)
            assert metrics["classes"][name][figure] == pytest.approx(np.mean(wanted), rel=1e-9)
    means = [metrics["classes"][name]["hd95"] for name in NAMES[1:]]
    assert metrics["mean"]["hd95"] == pytest.approx(np.mean(means))


def test_a_shifted_square_by_hand():
    truth, prediction = np.zeros((2, 1, 20, 20), "uint8")
    truth[0, 5:10, 5:10], prediction[0, 5:10, 8:13] = 1, 1
    row = segmentation_metrics(truth, prediction, ("nothing", "square"), (1.0, 2.0), tolerance=2.0)["classes"]["square"]
    assert row["dice"] == pytest.approx(2 * 10 / 50)
    assert row["iou"] == pytest.approx(10 / 40)
    assert row["hd95"] == pytest.approx(6)  # three pixels of 2 mm
    assert (row["pixels"], row["predicted_pixels"], row["images"]) == (25, 25, 1)


def test_a_mask_is_its_own_surface_where_it_is_thin():
    mask = np.zeros((7, 7), bool)
    mask[1:6, 1:6] = True
    assert surface(mask).sum() == 16
    assert surface(np.ones((3, 3), bool)).sum() == 8  # beyond the array is outside
    assert surface(mask[3:4]).sum() == 5


def test_empty_masks():
    truth, prediction = np.zeros((2, 4, 8, 8), "uint8")
    truth[0, 2:4, 2:4] = prediction[0, 2:4, 2:4] = 1  # perfect
    truth[1, 2:4, 2:4] = 1  # missed
    prediction[2, 2:4, 2:4] = 1  # invented; in the last image it is nowhere, and class two is nowhere at all
    metrics = segmentation_metrics(truth, prediction, NAMES)
    assert metrics["images"]["one"]["dice"] == [1, 0, 0, None]
    assert metrics["images"]["one"]["hd95"] == [0, None, None, None]
    one, two = metrics["classes"]["one"], metrics["classes"]["two"]
    assert (one["images"], one["missed"], one["invented"]) == (2, 1, 1)
    assert one["dice"] == one["surface_dice"] == pytest.approx(1 / 3)
    assert one["hd95"] == one["assd"] == 0
    assert one["pooled_dice"] == pytest.approx(2 * 4 / 16)
    assert two["dice"] is two["hd95"] is two["pooled_dice"] is None
    assert metrics["mean"]["dice"] == one["dice"]
    assert json.loads(json.dumps(metrics, allow_nan=False))["mean"] == metrics["mean"]
    table = segmentation_table(metrics).splitlines()
    assert [line.split()[0] for line in table[1:]] == ["one", "two", "mean"]
    assert table[1].split()[1:] == ["0.333", f"{one['iou']:.3f}", "0.00", "0.00", "0.333", "2", "1", "1"]
    figure = plot_segmentation(metrics, "title")
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.333"]


def test_ignored_pixels_count_nowhere():
    truth, prediction = random.integers(0, 3, (2, 3, 10, 12)).astype("uint8")
    truth[:, :4], other = 255, prediction.copy()
    other[:, :4] = random.integers(0, 3, (3, 4, 12))
    metrics = segmentation_metrics(truth, prediction, NAMES, ignore_label=255)
    assert metrics == segmentation_metrics(truth, other, NAMES, ignore_label=255)
    rest = truth[:, 4:], prediction[:, 4:]
    assert metrics["pooled"]["accuracy"] == pytest.approx((rest[0] == rest[1]).mean())
    assert metrics["classes"]["two"]["pixels"] == (rest[0] == 2).sum()


def test_images_of_different_sizes_and_spacings():
    pairs = [random.integers(0, 3, (2, 8, size)) for size in (6, 9)]
    spacing = [(1.0, 1.0), (2.0, 0.7)]
    together = segmentation_metrics(*zip(*pairs, strict=True), NAMES, spacing)
    for i, (t, p) in enumerate(pairs):
        alone = segmentation_metrics([t], [p], NAMES, spacing[i])
        assert together["images"]["two"]["hd95"][i] == alone["images"]["two"]["hd95"][0]
    assert "background" in segmentation_metrics(*zip(*pairs, strict=True), NAMES, background=None)["classes"]


def test_bad_arguments():
    maps = np.zeros((2, 4, 4), "uint8")
    for arguments, options, message in (
        ((maps, maps[:1], NAMES), {}, "2 and 1 images"),
        ((maps, maps[:, :3], NAMES), {}, "image 0: truth of shape"),
        ((maps, maps, NAMES, (1.0,)), {}, "spacing .*: give 2 numbers above 0"),
        ((maps, maps, NAMES, (1.0, 0.0)), {}, "spacing"),
        ((maps, maps, NAMES), {"tolerance": -1}, "tolerance -1"),
        ((maps + 3, maps, NAMES), {}, "labels hold 3"),
        ((maps, maps + 255, NAMES), {"ignore_label": 255}, "labels hold 255"),
    ):
        with pytest.raises(InputError, match=message):
            segmentation_metrics(*arguments, **options)
