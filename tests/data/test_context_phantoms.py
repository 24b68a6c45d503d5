import dataclasses

import numpy as np
import pytest

from kseq import data
from kseq.data import context_phantoms
from kseq.data.context_phantoms import CANDIDATE, GAS, _bubble, _paint, _plan, longest_distance
from kseq.errors import InputError

SIZES = [(64, 64), (80, 48), (11, 48, 48)]


def bubble(centre: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """The pixels of a bubble, `(pixels, axes)`, found apart from how it was painted."""
    pixels = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1).reshape(-1, len(size))
    return pixels[((pixels - centre) ** 2).sum(axis=1) <= _bubble(size) ** 2]


def gap(one: np.ndarray, other: np.ndarray) -> float:
    return np.sqrt(((one[:, None] - other) ** 2).sum(axis=-1).min())


@pytest.mark.parametrize("size", SIZES)
def test_the_cue_is_as_far_away_as_was_asked(size):
    distances = (4, longest_distance(size))
    phantoms = context_phantoms((40, 1, 1), size, distances, noise=0)
    images, labels = phantoms.train
    assert images.shape == (40, *size, 1)
    assert images.dtype == labels.dtype == np.uint8
    np.testing.assert_array_equal(np.unique(phantoms.distances[0], return_counts=True), (distances, (20, 20)))
    for image, label, distance, cue in zip(images, labels, phantoms.distances[0], phantoms.cues[0], strict=True):
        organ, other, dark = np.argwhere(label == 1), np.argwhere(label == 2), bubble(cue, size)
        assert abs(gap(organ, dark) - distance) <= 1
        assert gap(other, dark) > gap(organ, dark)
        assert len(organ) == len(other) > 0
        assert (image[label > 0] == CANDIDATE).all()  # identical, and whole
        assert (image[tuple(dark.T)] == GAS).all()


@pytest.mark.parametrize("size", SIZES)
def test_the_other_side_of_the_coin_changes_no_pixel_that_is_nearer_than_the_cue(size):
    """The proof that nothing but the cue tells: exchange its side, and labels change but no pixel within d - 1."""
    distances = (5, 11)
    plan = _plan(np.random.default_rng(1), 30, size, distances)
    other = dataclasses.replace(plan, organ=1 - plan.organ)
    (images, labels), (changed, swapped) = (_paint(one, np.random.default_rng(2), 0.05) for one in (plan, other))
    np.testing.assert_array_equal(swapped, np.array([0, 2, 1])[labels])
    for i, distance in enumerate(plan.distances):
        different = np.argwhere((images[i] != changed[i])[..., 0])
        assert len(different)
        assert gap(np.argwhere(labels[i] > 0), different) >= distance - 1
        both = np.concatenate([bubble(one.bubbles[i], size) for one in (plan, other)])
        assert set(map(tuple, different)) <= set(map(tuple, both))


def test_the_coin_is_fair_whatever_else_is_seen():
    """Which disc is the organ depends neither on the discs' places and sizes nor on anything else of the plan."""
    plan = _plan(np.random.default_rng(3), 6_000, (96, 96), (8, 40))
    seen = [plan.body, plan.radii, plan.greys, plan.patches, plan.candidates, plan.offsets, plan.distances]
    columns = np.concatenate([np.asarray(part, "float64").reshape(6_000, -1) for part in seen], axis=1)
    columns = columns[:, columns.std(axis=0) > 0]
    correlations = np.corrcoef(columns.T, plan.organ)[-1, :-1]
    assert np.abs(correlations).max() < 4.5 / np.sqrt(6_000)
    assert abs(plan.organ.mean() - 0.5) < 4.5 * 0.5 / np.sqrt(6_000)


def test_the_discs_can_be_found_exactly_with_the_cue():
    """Of all neighbouring centres and radii the likeliest disc is the true one, and the cue names it: a Dice of 1."""
    phantoms = context_phantoms((1, 1, 20))
    images, labels = phantoms.test
    pixels = np.mgrid[:96, :96].transpose(1, 2, 0)
    for i, (image, label, cue) in enumerate(zip(images[..., 0].astype(float), labels, phantoms.cues[2], strict=True)):
        image = np.where(image > 205, 110, image)  # bone is none of it
        found = []
        for centre in (phantoms.organs[2][i], phantoms.look_alikes[2][i]):
            far = ((pixels - centre) ** 2).sum(axis=-1)
            threshold = (np.median(image[(far > 64) & (far <= 121)]) + CANDIDATE) / 2
            guesses = [
                ((pixels - centre - shift) ** 2).sum(axis=-1) <= radius**2
                for shift in np.argwhere(np.ones((5, 5))) - 2
                for radius in (5, 6, 7)
            ]
            found.append(max(guesses, key=lambda disc: (image[disc] - threshold).sum()))
        below = [abs(np.argwhere(disc).mean(axis=0) - cue)[1] for disc in found]
        organ, other = found if below[0] < below[1] else found[::-1]
        assert 2 * (organ & (label == 1)).sum() / (organ.sum() + (label == 1).sum()) > 0.98
        assert 2 * (other & (label == 2)).sum() / (other.sum() + (label == 2).sum()) > 0.98


def test_without_the_cue_the_mean_dice_is_at_most_a_half():
    """By the formula of the docstring, and by counting over the labels of phantoms."""
    labels = context_phantoms((400, 1, 1), (32, 32), (4,), noise=0).train[1]
    left = np.arange(32) < 16
    best = {}
    for p, q in [(1, 0), (0, 1), (1, 1), (0, 0), (0.5, 0.5)]:
        share = np.where(left, p, q) * np.ones((32, 32))
        organ, other = ((labels > 0) * part for part in (share, 1 - share))
        dice = [
            2 * (guess * (labels == label)).sum() / (guess.sum() + (labels == label).sum())
            for guess, label in ((organ, 1), (other, 2))
        ]
        s = p + q
        np.testing.assert_allclose(dice, (s / (s + 1), (2 - s) / (3 - s)), atol=0.05)
        best[p, q] = np.mean(dice)
    assert max(best.values()) < 0.55
    assert best[0.5, 0.5] == pytest.approx(0.5, abs=1e-6)


def test_the_same_seed_gives_the_same_images_and_splits_differ():
    arguments = ((3, 3, 3), (32, 32), (4, 6))
    one, same, other = (context_phantoms(*arguments, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.train[0], same.train[0])
    np.testing.assert_array_equal(one.test[1], same.test[1])
    assert (one.train[0] != other.train[0]).any()
    assert (one.train[0] != one.validation[0]).any()
    assert (one.validation[0] != one.test[0]).any()
    assert one.class_names == ("background", "organ", "look-alike")
    assert len(one.spacing) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": (1, 0, 1)}, "count \\(1, 0, 1\\): give three"),
        ({"size": (16, 16)}, "size \\(16, 16\\): give \\(height, width\\)"),
        ({"size": (3, 64, 64)}, "size \\(3, 64, 64\\): balls of radius 5 need a depth of 11 or more"),
        ({"distances": (8, 60)}, "have room for 2 to 42; larger images"),
        ({"distances": ()}, "distances \\(\\): images of size"),
        ({"noise": float("nan")}, "noise nan: give 0 to 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        data.context_phantoms(**arguments)
