import keras
import numpy as np
import pytest

from kseq.errors import InputError
from kseq.training import InverseSquareRoot, polynomial, warmup_cosine


def rates(schedule, steps) -> np.ndarray:
    return np.array([float(keras.ops.convert_to_numpy(schedule(step))) for step in steps])


def test_the_rate_rises_linearly_and_falls_as_a_cosine():
    got = rates(warmup_cosine(0.5, 100, warmup=0.2), range(101))
    np.testing.assert_allclose(got[:21], 0.5 * np.arange(21) / 20, atol=1e-6)
    np.testing.assert_allclose(got[20:], 0.25 * (1 + np.cos(np.pi * np.arange(81) / 80)), atol=1e-6)


def test_few_steps_have_no_warm_up():
    np.testing.assert_allclose(rates(warmup_cosine(0.5, 4), range(5))[[0, 4]], [0.5, 0.0], atol=1e-7)


def test_the_rate_of_the_transformer_is_equation_3():
    schedule = InverseSquareRoot(512)
    step = np.array([1, 2, 100, 3999, 4000, 4001, 100_000])
    expected = 512**-0.5 * np.minimum(step**-0.5, step * 4000.0**-1.5)
    np.testing.assert_allclose(rates(schedule, step - 1), expected, rtol=1e-5)
    assert rates(schedule, [3999])[0] == pytest.approx(6.99e-4, rel=1e-3)
    copied = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert copied.get_config() == schedule.get_config()


def test_the_rate_rises_linearly_and_falls_as_a_power():
    schedule = polynomial(0.5, 100, warmup=0.2, end=0.01)
    got = rates(schedule, [0, 5, 10, 19, 20, 40, 60, 99, 100, 150])
    falling = 0.01 + 0.49 * (1 - np.array([0, 20, 40, 79, 80, 80]) / 80) ** 0.9
    np.testing.assert_allclose(got, [0, 0.125, 0.25, 0.475, *falling], atol=1e-6)
    alone = rates(polynomial(0.01, 50), range(51))
    np.testing.assert_allclose(alone, 0.01 * (1 - np.arange(51) / 50) ** 0.9, atol=1e-8)
    copied = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert copied.get_config() == schedule.get_config()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: warmup_cosine(0.1, 0), "steps 0"),
        (lambda: warmup_cosine(0.1, 10, warmup=1.0), "warmup 1.0"),
        (lambda: polynomial(0.1, 0), "steps 0"),
        (lambda: polynomial(0.1, 10, warmup=-0.1), "warmup -0.1"),
        (lambda: polynomial(0.1, 10, power=0), "power 0"),
        (lambda: InverseSquareRoot(0), "embed_dim 0"),
        (lambda: InverseSquareRoot(8, warmup_steps=0), "warmup_steps 0"),
    ],
)
def test_arguments_out_of_range(make, message):
    with pytest.raises(InputError, match=message):
        make()
