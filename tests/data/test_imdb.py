import keras
import numpy as np
import pytest

from kseq import data
from kseq.errors import InputError, KseqError


@pytest.fixture
def folder(tmp_path):
    for split, count in (("train", 30), ("test", 5)):
        for name, stars in (("neg", 2), ("pos", 9)):
            place = tmp_path / "aclImdb" / split / name
            place.mkdir(parents=True)
            for number in range(count):
                text = f"A  {name} film, {split} {number}.<br /><br />Très\n<BR>fin <br/>end."
                (place / f"{number}_{stars}.txt").write_text(text.replace("<BR>", ""), encoding="utf-8")
    (tmp_path / "aclImdb" / "train" / "unsup").mkdir()
    (tmp_path / "aclImdb" / "train" / "labeledBow.feat").write_text("9 0:9 1:1\n")
    return tmp_path / "aclImdb"


def test_a_folder_of_texts(folder):
    reviews = data.imdb(folder)
    assert [len(targets) for _, targets in (reviews.train, reviews.validation, reviews.test)] == [54, 6, 10]
    seen = []
    for texts, targets in (reviews.train, reviews.validation, reviews.test):
        assert (texts.dtype, targets.dtype) == (object, np.int32)
        np.testing.assert_array_equal(np.bincount(targets), 2 * [len(targets) // 2])
        for text, target in zip(texts, targets, strict=True):
            assert text.startswith(f"A {('neg', 'pos')[target]} film, ")
            assert text.endswith(". Très fin end.")
        seen += list(texts)
    assert len(set(seen)) == 70
    assert all(" test " in text for text in reviews.test[0])
    assert not any(" test " in text for text in (*reviews.train[0], *reviews.validation[0]))


def test_the_folder_above_it_will_do_and_the_split_never_changes(folder):
    one, other = data.imdb(folder), data.imdb(folder.parent)
    np.testing.assert_array_equal(one.validation[0], other.validation[0])


@pytest.mark.parametrize("missing", ["train/pos", "test/neg"])
def test_a_folder_without_reviews(folder, missing):
    for path in (folder / missing).glob("*"):
        path.unlink()
    with pytest.raises(InputError, match=f"no reviews {missing}/.*; give what aclImdb_v1.tar.gz unpacks to"):
        data.imdb(folder)


def test_no_folder_at_all(tmp_path):
    with pytest.raises(InputError, match="nowhere: no reviews train/neg"):
        data.imdb(tmp_path / "nowhere")


def test_a_review_that_is_not_utf_8_is_named(folder):
    (folder / "test" / "pos" / "3_9.txt").write_bytes(b"tr\xe8s bien")
    with pytest.raises(InputError, match=r"3_9\.txt: no UTF-8 \(byte 2\)"):
        data.imdb(folder)


def test_the_numbers_that_keras_downloads_become_words(monkeypatch):
    words = {"the": 1, "film": 2, "good": 3, "bad": 4, "c'est": 5}

    def load_data(index_from):
        def reviews(count):
            numbers = [[1, *(index_from + n for n in (1, 2, 3 + k % 2, 5)), 2] for k in range(count)]
            return np.array(numbers, dtype=object), 1 - np.arange(count) % 2

        return reviews(40), reviews(8)

    monkeypatch.setattr(keras.datasets.imdb, "load_data", load_data)
    monkeypatch.setattr(keras.datasets.imdb, "get_word_index", lambda: words)
    reviews = data.imdb()
    assert [len(targets) for _, targets in (reviews.train, reviews.validation, reviews.test)] == [36, 4, 8]
    for texts, targets in (reviews.train, reviews.validation, reviews.test):
        assert targets.dtype == np.int32
        assert list(texts) == [f"the film {('bad', 'good')[target]} c'est" for target in targets]


@pytest.mark.parametrize("name", ["load_data", "get_word_index"])
def test_a_download_that_fails_says_what_to_do(monkeypatch, name):
    def fail(**_):
        raise Exception("URL fetch failure on https://…: None -- no route\nto host")

    monkeypatch.setattr(keras.datasets.imdb, "load_data", lambda **_: (([], []), ([], [])))
    monkeypatch.setattr(keras.datasets.imdb, name, fail)
    with pytest.raises(KseqError, match="imdb: Keras cannot download or read it .*no route.*; connect") as caught:
        data.imdb()
    assert "\n" not in str(caught.value)
