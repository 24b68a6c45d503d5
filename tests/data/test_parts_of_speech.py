import re
from importlib import resources

import numpy as np

from kseq import data


def test_counts_are_those_of_wordnet():
    words = data.parts_of_speech()
    targets = np.concatenate([split[1] for split in (words.train, words.validation, words.test)])
    assert words.class_names == ("noun", "verb", "adjective", "adverb")
    np.testing.assert_array_equal(np.bincount(targets), [47_553, 4_231, 14_399, 3_080])


def test_splits_are_disjoint_and_stratified():
    words = data.parts_of_speech()
    splits = (words.train, words.validation, words.test)
    everything = np.concatenate([split[0] for split in splits])
    assert len(set(everything)) == len(everything) == 69_263
    for (inputs, targets), share in zip(splits, (0.8, 0.1, 0.1), strict=True):
        assert abs(len(inputs) / len(everything) - share) < 1e-4
        np.testing.assert_allclose(np.bincount(targets) / len(targets), [0.6866, 0.0611, 0.2079, 0.0445], atol=1e-3)


def test_words_are_what_the_encoder_reads():
    words = data.parts_of_speech()
    assert all(re.fullmatch("[a-z]{3,15}", word) for word in words.test[0])
    known = dict(zip(*words.train, strict=True)) | dict(zip(*words.validation, strict=True))
    known |= dict(zip(*words.test, strict=True))
    assert [words.class_names[known[word]] for word in ("kindness", "simplify", "dangerous", "quickly")] == [
        "noun",
        "verb",
        "adjective",
        "adverb",
    ]
    assert "deep" not in known  # noun, adjective and adverb


def test_the_file_is_small_and_its_licence_is_beside_it():
    files = resources.files("kseq.data").joinpath("files")
    assert len(files.joinpath("parts_of_speech.txt.xz").read_bytes()) < 400_000
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in files.joinpath("parts_of_speech.LICENSE").read_text()
