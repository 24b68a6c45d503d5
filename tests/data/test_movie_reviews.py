import re
from importlib import resources

import numpy as np

from kseq import data


def splits(reviews):
    return (reviews.train, reviews.validation, reviews.test)


def test_clear_sentences_are_rated_at_least_1():
    reviews = data.movie_reviews()
    assert [len(texts) for texts, _ in splits(reviews)] == [7_338, 916, 919]
    assert reviews.class_names == ("negative", "positive")
    for (texts, targets), ratings in zip(splits(reviews), reviews.ratings, strict=True):
        assert texts.dtype == object
        assert all(type(text) is str for text in texts)
        assert targets.dtype == np.int32
        assert len(texts) == len(targets) == len(ratings)
        assert (np.abs(ratings) >= 1).all()
        np.testing.assert_array_equal(targets, ratings > 0)
        np.testing.assert_allclose(np.mean(targets), 0.501, atol=2e-3)


def test_all_sentences_but_those_rated_0_with_the_clear_ones_in_the_same_splits():
    clear, every = data.movie_reviews(), data.movie_reviews(clear=False)
    assert [len(texts) for texts, _ in splits(every)] == [8_454, 1_056, 1_058]
    for (texts, targets), ratings, part in zip(splits(every), every.ratings, splits(clear), strict=True):
        assert ratings.all()
        kept = np.abs(ratings) >= 1
        np.testing.assert_array_equal(texts[kept], part[0])
        np.testing.assert_array_equal(targets[kept], part[1])


def test_no_sentence_is_in_two_splits():
    every = data.movie_reviews(clear=False)
    train, validation, test = (
        {" ".join(re.findall(r"\w+", text.lower())) for text in texts} for texts, _ in splits(every)
    )
    assert train.isdisjoint(validation | test)
    assert validation.isdisjoint(test)
    assert len(train | validation | test) == 10_566  # two are there twice


def test_known_sentences():
    every = data.movie_reviews(clear=False)
    texts = np.concatenate([texts for texts, _ in splits(every)])
    ratings = dict(zip(texts, np.concatenate(every.ratings), strict=True))
    for text, rating in (
        ("Effective but too tepid biopic", -0.6),
        ("Horrible.", -3.1333),
        ("Some stunning visuals and some staggeringly boring cinema.", -0.9444),  # a dash was there
        ("Touché!", 0.4706),
        ("A masterpiece four years in the making.", 3.4),
    ):
        np.testing.assert_allclose(ratings[text], rating, atol=1e-6)
    assert not any("&amp;" in text or "  " in text or "\t" in text for text in texts)
    assert any("Lovely & Amazing" in text for text in texts)


def test_the_file_is_small_and_its_licence_is_beside_it():
    files = resources.files("kseq.data").joinpath("files")
    assert len(files.joinpath("movie_reviews.tsv.xz").read_bytes()) < 500_000
    assert "Copyright (c) 2016 C.J. Hutto" in files.joinpath("movie_reviews.LICENSE").read_text()
