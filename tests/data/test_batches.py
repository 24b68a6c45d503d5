from itertools import combinations

import keras
import numpy as np
import pytest

from kseq.data import Batches
from kseq.data.batches import _bounds
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


TARGET_LENGTHS = np.clip(np.rint(random.normal(16, 6, 5000)), 2, 40).astype(int)
SOURCE_LENGTHS = np.clip(np.rint(0.8 * TARGET_LENGTHS + random.normal(3.2, 3.6, 5000)), 2, 40).astype(int)


def rows(lengths: np.ndarray) -> np.ndarray:
    """Rows of `time` 40 that tell their numbers, counted from 1, up to their lengths."""
    return np.where(np.arange(40) < lengths[:, None], np.arange(len(lengths))[:, None] + 1, 0)


@pytest.fixture(scope="module")
def pairs() -> Batches:
    source, target = rows(SOURCE_LENGTHS), rows(TARGET_LENGTHS)
    lengths = (SOURCE_LENGTHS, TARGET_LENGTHS)
    return Batches((source, target), target, 64, seed=1, lengths=lengths, target_lengths=TARGET_LENGTHS)


def test_pairs_stay_together_and_only_padding_is_cut(pairs):
    seen = []
    for index in range(len(pairs)):
        (source, target), targets = pairs[index]
        np.testing.assert_array_equal(source[:, 0], targets[:, 0])
        np.testing.assert_array_equal(target, targets)
        numbers = targets[:, 0] - 1
        assert (source > 0).sum() == SOURCE_LENGTHS[numbers].sum()
        assert (targets > 0).sum() == TARGET_LENGTHS[numbers].sum()
        seen += numbers.tolist()
    assert sorted(seen) == list(range(5000))


def test_pairs_have_little_padding_and_few_shapes_in_all_epochs(pairs):
    shapes = set()
    for epoch in range(4):
        pairs.set_epoch(epoch)
        batches = [pairs[index] for index in range(len(pairs))]
        tokens = [array for (source, target), targets in batches for array in (source, target, targets)]
        padding = 1 - sum((array > 0).sum() for array in tokens) / sum(array.size for array in tokens)
        assert pairs.padding == pytest.approx(padding)
        assert padding < 0.2
        shapes |= {(source.shape, targets.shape) for (source, _), targets in batches}
        first, second = batches[:2]
        assert first[0][0].shape[1] > second[0][0].shape[1]
        assert first[1].shape[1] > second[1].shape[1]
    assert len(shapes) <= 16
    pairs.set_epoch(0)


def test_a_sequence_for_each_token_cuts_both():
    batches = Batches(INPUTS, INPUTS, 16, seed=1, lengths=LENGTHS, target_lengths=LENGTHS)
    alone = Batches(INPUTS, INPUTS, 16, seed=1, lengths=LENGTHS)
    for index in range(len(batches)):
        inputs, targets = batches[index]
        np.testing.assert_array_equal(inputs, targets)
        np.testing.assert_array_equal(inputs, alone[index][0])
    assert batches.padding == pytest.approx(alone.padding)
    assert 0 < batches.padding < 0.2
    assert Batches(INPUTS, INPUTS, 16).padding == 0


def test_inputs_without_lengths_stay_whole():
    batches = Batches((INPUTS, np.arange(1000)), INPUTS, 16, seed=1, lengths=(LENGTHS, None))
    for index in range(3):
        (inputs, numbers), targets = batches[index]
        assert inputs.shape[1] <= targets.shape[1] == 15
        np.testing.assert_array_equal(inputs[:, 0], numbers + 1)
    (inputs, _), _ = Batches((INPUTS, INPUTS), INPUTS, 16)[0]
    assert inputs.shape == (16, 15)


def test_bounds_are_the_best():
    for count in (1, 2, 3, 5):
        for lengths in random.integers(1, 12, (5, 30)):
            values = np.unique(lengths)
            choices = [(*some, values[-1]) for some in combinations(values[:-1], min(count, len(values)) - 1)]
            best = min(sum(min(b for b in bounds if b >= n) for n in lengths) for bounds in choices)
            found = _bounds(lengths, count)
            assert len(found) <= count
            assert found[np.searchsorted(found, lengths)].sum() == best


def test_fit_takes_pairs():
    source, target = keras.Input((None,), name="source"), keras.Input((None,), name="target")
    pooled = keras.layers.GlobalAveragePooling1D(keepdims=True)(keras.layers.Reshape((-1, 1))(source))
    model = keras.Model(
        [source, target], keras.layers.Dense(1)(keras.layers.Add()([keras.layers.Reshape((-1, 1))(target), pooled]))
    )
    model.compile("sgd", "mse")
    lengths = (SOURCE_LENGTHS[:40], TARGET_LENGTHS[:40])
    arrays = tuple(rows(length).astype("float32") for length in lengths)
    batches = Batches(arrays, arrays[1], 8, seed=0, lengths=lengths, target_lengths=lengths[1])
    assert model.fit(batches, shuffle=False, verbose=0).history["loss"][0] > 0


def test_targets_under_several_names_are_the_same():
    batches = Batches(INPUTS, np.arange(1000), 32, seed=1, target_names=("logits", "auxiliary_0"))
    plain = Batches(INPUTS, np.arange(1000), 32, seed=1)
    inputs, targets = batches[3]
    assert list(targets) == ["logits", "auxiliary_0"]
    np.testing.assert_array_equal(inputs, plain[3][0])
    for value in targets.values():
        np.testing.assert_array_equal(value, plain[3][1])


def test_a_change_of_pairs_gets_both():
    class Negative:
        changes_targets = True

        def __call__(self, inputs, targets, random):
            return -inputs, targets + random.integers(1000, 2000)

    one, again = (Batches(INPUTS, np.arange(1000), 32, seed=1, augment=Negative())[2] for _ in range(2))
    plain = Batches(INPUTS, np.arange(1000), 32, seed=1)[2]
    np.testing.assert_array_equal(one[0], -plain[0])
    assert len(set(one[1] - plain[1])) == 1
    assert (one[1] >= 1000).all()
    np.testing.assert_array_equal(one[1], again[1])


def test_without_a_seed_the_order_is_kept():
    assert samples(Batches(INPUTS, np.arange(1000), 300)) == list(range(1000))


def test_fit_takes_them(tagger):
    model, inputs, targets = tagger
    lengths = (inputs > 0).sum(axis=1)
    model.fit(Batches(inputs, targets, 4, seed=0, lengths=lengths), epochs=2, shuffle=False, verbose=0)


def test_an_empty_sequence_keeps_a_step():
    tokens, lengths = np.array([[5, 6], [0, 0], [7, 0]]), np.array([2, 0, 1])
    batches = Batches(tokens, lengths, 1, lengths=lengths)
    assert [batches[i][0].shape for i in range(3)] == [(1, 2), (1, 2), (1, 2)]
    pairs = Batches((tokens, tokens), tokens, 1, lengths=(lengths, lengths[::-1]), target_lengths=lengths[::-1])
    shapes = [[array.shape[1] for array in (*inputs, targets)] for inputs, targets in (pairs[i] for i in range(3))]
    assert min(map(min, shapes)) == 1


def test_bad_arguments():
    with pytest.raises(InputError, match="samples; give the same number"):
        Batches(INPUTS, np.arange(999), 32)
    with pytest.raises(InputError, match="at least one"):
        Batches(INPUTS[:0], np.arange(0), 32)
    with pytest.raises(InputError, match="batch_size 0"):
        Batches(INPUTS, np.arange(1000), 0)
    with pytest.raises(InputError, match="a tuple of as many"):
        Batches((INPUTS, INPUTS), INPUTS, 32, lengths=LENGTHS)
    with pytest.raises(InputError, match="1 for 2 inputs"):
        Batches((INPUTS, INPUTS), INPUTS, 32, lengths=(LENGTHS,))
    with pytest.raises(InputError, match="16 in an array of length 15"):
        Batches(INPUTS, INPUTS, 32, lengths=LENGTHS + 1)
    with pytest.raises(InputError, match="3 that differ"):
        ends = (LENGTHS, np.maximum(LENGTHS - 1, 1))
        Batches((INPUTS, INPUTS), INPUTS, 32, lengths=ends, target_lengths=np.full(1000, 15))
