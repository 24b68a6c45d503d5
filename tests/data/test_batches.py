import keras
import numpy as np
import pytest

from kseq.data import Batches
from kseq.errors import InputError

random = np.random.default_rng(0)
LENGTHS = random.integers(1, 16, 1000)
INPUTS = np.where(np.arange(15) < LENGTHS[:, None], np.arange(1000)[:, None] + 1, 0)  # each row tells its number


def samples(batches: Batches) -> list[int]:
    return [int(number) for index in range(len(batches)) for number in batches[index][1]]


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_every_epoch_has_every_sample_once_in_its_own_order(lengths):
    batches = Batches(INPUTS, np.arange(1000), 32, seed=1, lengths=lengths)
    first = samples(batches)
    batches.set_epoch(1)
    second = samples(batches)
    assert sorted(first) == sorted(second) == list(range(1000))
    assert first != second
    batches.set_epoch(0)
    assert samples(batches) == first


def test_the_order_does_not_depend_on_the_process():
    keras.utils.set_random_seed(1)
    first = samples(Batches(INPUTS, np.arange(1000), 32, seed=7))
    keras.utils.set_random_seed(2)
    assert samples(Batches(INPUTS, np.arange(1000), 32, seed=7)) == first
    assert samples(Batches(INPUTS, np.arange(1000), 32, seed=8)) != first


def test_inputs_and_targets_stay_together():
    batches = Batches(INPUTS, np.arange(1000), 32, seed=1, lengths=LENGTHS)
    for index in range(len(batches)):
        inputs, targets = batches[index]
        np.testing.assert_array_equal(inputs[:, 0], targets + 1)


def test_only_padding_is_cut_and_little_is_left():
    batches = Batches(INPUTS, np.arange(1000), 16, seed=1, lengths=LENGTHS)
    computed = 0
    for index in range(len(batches)):
        inputs, targets = batches[index]
        assert (inputs > 0).sum() == LENGTHS[targets].sum()
        computed += inputs.size
    assert computed < LENGTHS.sum() / 0.8  # under 20 % padding
    assert computed < 0.7 * INPUTS.size


def test_the_first_two_batches_differ_in_length():
    for epoch in range(5):
        batches = Batches(INPUTS, np.arange(1000), 32, seed=1, lengths=LENGTHS)
        batches.set_epoch(epoch)
        assert batches[0][0].shape[1] > batches[1][0].shape[1]


def test_without_a_seed_the_order_is_kept():
    assert samples(Batches(INPUTS, np.arange(1000), 300)) == list(range(1000))


def test_fit_takes_them(tagger):
    model, inputs, targets = tagger
    lengths = (inputs > 0).sum(axis=1)
    model.fit(Batches(inputs, targets, 4, seed=0, lengths=lengths), epochs=2, shuffle=False, verbose=0)


def test_bad_arguments():
    with pytest.raises(InputError, match="samples; give the same number"):
        Batches(INPUTS, np.arange(999), 32)
    with pytest.raises(InputError, match="at least one"):
        Batches(INPUTS[:0], np.arange(0), 32)
    with pytest.raises(InputError, match="batch_size 0"):
        Batches(INPUTS, np.arange(1000), 0)
