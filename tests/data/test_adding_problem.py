import numpy as np
import pytest

from kseq.data.adding_problem import adding_problem
from kseq.errors import InputError


@pytest.mark.parametrize("length", [2, 3, 50])
def test_two_numbers_are_marked_one_a_half_and_the_target_is_their_sum(length):
    inputs, targets = adding_problem(500, length, 0)
    numbers, marks = inputs[..., 0], inputs[..., 1]
    assert inputs.shape == (500, length, 2)
    assert targets.shape == (500, 1)
    assert inputs.dtype == targets.dtype == np.float32
    assert np.isin(marks, (0, 1)).all()
    assert (marks[:, : length // 2].sum(axis=1) == 1).all()
    assert (marks[:, length // 2 :].sum(axis=1) == 1).all()
    assert numbers.min() >= 0
    assert numbers.max() < 1
    np.testing.assert_allclose((numbers * marks).sum(axis=1), targets[:, 0], rtol=1e-6)


def test_every_position_is_marked_equally_often():
    inputs, _ = adding_problem(20_000, 10, 0)
    np.testing.assert_allclose(inputs[..., 1].mean(axis=0), 0.2, atol=0.015)


def test_answering_the_mean_has_an_error_of_a_sixth():
    _, targets = adding_problem(20_000, 10, 0)
    assert targets.mean() == pytest.approx(1, abs=0.01)
    assert np.mean((targets - 1) ** 2) == pytest.approx(1 / 6, abs=0.005)


def test_the_seed_alone_decides():
    first, again, other = (adding_problem(8, 20, seed) for seed in ((0, 1), (0, 1), (0, 2)))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 10), "samples 0: give 1 or more"), ((4, 1), "length 1: no room for two marks; give 2 or more")],
)
def test_what_cannot_be_generated_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        adding_problem(*arguments, seed=0)
