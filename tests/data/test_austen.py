import string
from importlib import resources

from kseq import data


def test_sizes_of_the_splits():
    novels = data.austen()
    parts = (novels.train, novels.validation, novels.test)
    assert [len(part) for part in parts] == [97, 10, 9]
    assert [sum(map(len, part)) for part in parts] == [1_291_419, 157_947, 114_122]


def test_held_out_are_whole_chapters():
    novels = data.austen()
    assert novels.train[0].startswith("It is a truth universally acknowledged, that a single man in possession of a go")
    assert novels.train[51].startswith("Emma Woodhouse, handsome, clever, and rich, with a comfortable home and happy")
    assert novels.validation[0].startswith("The ladies of Longbourn soon waited on those of Netherfield.")  # chapter 6
    assert novels.test[0].startswith("In consequence of an agreement between the sisters, Elizabeth wrote")  # 12
    ending = "fully answered in the perfect happiness of the union."
    assert novels.train[-1].endswith(ending)


def test_no_paragraph_of_length_is_in_two_splits():
    novels = data.austen()
    train, validation, test = (
        {line for text in part for line in text.split("\n") if len(line) > 40}
        for part in (novels.train, novels.validation, novels.test)
    )
    assert train.isdisjoint(validation | test)
    assert validation.isdisjoint(test)


def test_the_text_is_clean():
    novels = data.austen()
    for chapter in (*novels.train, *novels.validation, *novels.test):
        assert 2_000 < len(chapter) < 40_000
        assert set(chapter) <= {*string.ascii_letters, *string.digits, *string.punctuation, " ", "\n"}
        assert not set(chapter) & set("_*\f")
        assert "  " not in chapter
        assert "\n\n\n" not in chapter
        assert "\n " not in chapter
        assert not any(line.startswith(("CHAPTER", "Chapter", "VOLUME", "FINIS")) for line in chapter.split("\n"))
    verse = "My first displays the wealth and pomp of kings,\nLords of the earth! their luxury and ease.\n"
    assert any(verse in chapter for chapter in novels.train)


def test_the_file_is_small_and_its_licence_is_beside_it():
    files = resources.files("kseq.data").joinpath("files")
    assert len(files.joinpath("austen.txt.xz").read_bytes()) < 500_000
    assert "public domain" in files.joinpath("austen.LICENSE").read_text()
