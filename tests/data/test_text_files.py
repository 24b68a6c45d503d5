import importlib
import re
import zipfile

import numpy as np
import pytest

from kseq import data
from kseq.errors import InputError

text_files = importlib.import_module("kseq.data.text_files")


def write(tmp_path, content: bytes, name="pairs.tsv"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def zipped(tmp_path, **files: str):
    path = tmp_path / "fra-eng.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "."), content)
    return path


def test_pairs_of_every_script_with_what_stands_behind_them_left_out(tmp_path):
    lines = [
        "Go.\tVa !\tCC-BY 2.0 (France) Attribution: tatoeba.org #2877272 (CM)",
        "Good morning.\tصباح الخير.",
        "Peace and שלום\t平和と Мир 🕊",
        "a  b\u00a0c\u202fd\tCafe\u0301\u00a0!",
    ]
    pairs = data.read_pairs(write(tmp_path, "\n".join(lines).encode()))
    assert list(pairs.sources) == ["Go.", "Good morning.", "Peace and שלום", "a b c d"]
    assert list(pairs.targets) == ["Va !", "صباح الخير.", "平和と Мир 🕊", "Café !"]
    assert pairs.sources.dtype == pairs.targets.dtype == object
    assert pairs.rejected == ()


def test_lines_that_cannot_be_used_are_named_and_the_rest_is_kept(tmp_path):
    content = b"Hi.\tSalut.\nno tab\n\nBye.\tAu rev\xe9\nEmpty.\t \n\tVide.\n \t\nRun!\tCours !\nno tab\nlast"
    with pytest.warns(UserWarning, match="lines left out") as caught:
        pairs = data.read_pairs(write(tmp_path, content))
    assert list(zip(pairs.sources, pairs.targets, strict=True)) == [("Hi.", "Salut."), ("Run!", "Cours !")]
    assert pairs.rejected == (
        (2, "no tab"), (4, "broken UTF-8"), (5, "an empty side"), (6, "an empty side"), (9, "no tab"), (10, "no tab"),
    )  # fmt: skip
    message = str(caught[0].message)
    assert message.endswith(
        "6 of 10 lines left out: no tab in line 2, 9, 10; broken UTF-8 in line 4; an empty side in line 5, 6"
    )
    assert caught[0].filename == __file__


def test_a_warning_stays_short(tmp_path):
    with pytest.warns(UserWarning, match=r"left out: no tab in line 1, 2, 3, 4, 5, …$"):
        data.read_pairs(write(tmp_path, b"nothing\n" * 1_000 + b"a\tb"))


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r"])
def test_ends_of_lines_and_byte_order_marks(tmp_path, end):
    pairs = data.read_pairs(write(tmp_path, b"\xef\xbb\xbf" + end.join([b"one\tun", b"two\tdeux", b""]), "pairs.TXT"))
    assert list(zip(pairs.sources, pairs.targets, strict=True)) == [("one", "un"), ("two", "deux")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no pair in 0 lines; a line is"),
        (b"\n \n", "no pair in 2 lines; a line is"),
        (b"one,un\ntwo,deux\n", "no pair in 2 lines: no tab in line 1, 2; a line is"),
        (b"one\t\xffun", "no pair in 1 lines: broken UTF-8 in line 1"),
    ],
)
def test_a_file_without_pairs(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        data.read_pairs(write(tmp_path, content))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file or directory; give a text file"):
        data.read_pairs(tmp_path / "none.tsv")
    with pytest.raises(InputError, match="no such file or directory; give a .zip file"):
        data.read_pairs(tmp_path / "none.zip")
    with pytest.raises(InputError, match=r"pairs\.json: a file of pairs is a \.tsv, a \.txt or a \.zip"):
        data.read_pairs(write(tmp_path, b"[]", "pairs.json"))
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(InputError, match="is a directory"):
        data.read_pairs(tmp_path / "folder.txt")


def test_a_zip_with_one_file_of_pairs(tmp_path):
    pairs = data.read_pairs(zipped(tmp_path, _about__txt="About\tthis", fra__txt="Go.\tVa !\tCC-BY", image__png="x"))
    assert (list(pairs.sources), list(pairs.targets)) == (["Go."], ["Va !"])


def test_zips_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match=r"2 \.tsv or \.txt files in it \(a\.txt, b\.tsv\); it must hold one"):
        data.read_pairs(zipped(tmp_path, a__txt="a\tb", b__tsv="c\td"))
    with pytest.raises(InputError, match=r"0 \.tsv or \.txt files in it \(none\)"):
        data.read_pairs(zipped(tmp_path, _about__txt="About\tthis"))
    with pytest.raises(InputError, match="cannot be unpacked"):
        data.read_pairs(write(tmp_path, b"<html>Not Acceptable</html>", "page.zip"))
    path = zipped(tmp_path, fra__txt="Go.\tVa !\n" * 1_000)
    content = bytearray(path.read_bytes())
    content[45] ^= 0xFF  # in the packed data
    with pytest.raises(InputError, match="cannot be unpacked"):
        data.read_pairs(write(tmp_path, bytes(content), "damaged.zip"))


def pairs(count: int) -> data.Pairs:
    sources = [f"Sentence number {k // 2}{'.!'[k % 2]}" for k in range(count)]  # two that count as one
    return data.Pairs(np.array(sources, object), np.array([f"Phrase {k}" for k in range(count)], object))


def keys(part) -> set[str]:
    return {re.sub(r"\W", "", text).lower() for text in part[0]}


def test_no_source_sentence_is_in_two_splits():
    corpus = pairs(400).split(("eng", "fra"), "here")
    assert (corpus.languages, corpus.source) == (("eng", "fra"), "here")
    parts = (corpus.train, corpus.validation, corpus.test)
    assert [len(sources) for sources, _ in parts] == [320, 40, 40]
    train, validation, test = map(keys, parts)
    assert train.isdisjoint(validation | test)
    assert validation.isdisjoint(test)
    for sources, targets in parts:
        numbers = [int(target.split()[1]) for target in targets]
        assert numbers == sorted(numbers)
        assert [re.findall(r"\d+", source)[0] for source in sources] == [str(number // 2) for number in numbers]


def test_the_split_does_not_depend_on_the_order_and_hardly_on_what_is_added():
    before, after = pairs(400), pairs(440)
    shuffled = np.random.default_rng(0).permutation(400)
    again = data.Pairs(before.sources[shuffled], before.targets[shuffled]).split()
    assert keys(again.test) == keys(before.split().test)
    moved = keys(before.split().test) - keys(after.split().test)
    assert len(moved) <= 4


def test_the_smallest_split_and_too_small_ones():
    corpus = pairs(6).split()
    assert [len(part[0]) for part in (corpus.train, corpus.validation, corpus.test)] == [2, 2, 2]
    with pytest.raises(InputError, match="2 different source sentences; three splits need at least 3"):
        pairs(4).split()


def test_sentences_of_nothing_but_marks_are_kept_apart():
    marks = np.array(["?", "!", "…", "؟"], object)
    corpus = data.Pairs(marks, marks).split()
    assert len(corpus.test[0]) == len(corpus.validation[0]) == 1


def test_tatoeba(tmp_path, monkeypatch):
    lines = "".join(f"Word {k}.\tMot {k}.\tCC-BY\n" for k in range(50))
    path = zipped(tmp_path, _about__txt="About", deu__txt=lines)
    asked = []

    def download(url, *, sha256, folder):
        asked.append((url, sha256, folder))
        return path

    monkeypatch.setattr(text_files, "download", download)
    corpus = data.tatoeba("deu-eng", folder=tmp_path)
    assert asked == [("https://www.manythings.org/anki/deu-eng.zip", None, tmp_path)]
    assert [len(part[0]) for part in (corpus.train, corpus.validation, corpus.test)] == [40, 5, 5]
    assert corpus.languages == ("eng", "deu")
    assert re.search(r"SHA-256 [0-9a-f]{64}\); licence: CC BY 2.0 FR", corpus.source)
    for name in ("fra", "../fra-eng", "fra-eng.zip", "FRA-ENG"):
        with pytest.raises(InputError, match='such as "fra-eng"'):
            data.tatoeba(name)


def test_a_text_is_cut_at_ends_of_lines(tmp_path):
    text = "".join(f"Line {k}, ligne é, שורה, 行.\n" for k in range(1_000))
    path = write(tmp_path, b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(), "novel.txt")
    corpus = data.read_text(path)
    parts = [*corpus.train, *corpus.validation, *corpus.test]
    assert "".join(parts) == text
    assert all(part.endswith("\n") for part in parts)
    np.testing.assert_allclose([len(part) / len(text) for part in parts], [0.8, 0.1, 0.1], atol=2e-3)
    assert corpus.source == str(path)


def test_a_text_of_one_line_is_cut_anywhere(tmp_path):
    corpus = data.read_text(write(tmp_path, b"0123456789" * 100))
    assert [len(*part) for part in (corpus.train, corpus.validation, corpus.test)] == [800, 100, 100]
    assert data.read_text(write(tmp_path, b"0123456789")).test == ("9",)
    assert data.read_text(write(tmp_path, b"\n" * 10)).train == ("\n" * 8,)


def test_letters_are_composed(tmp_path):
    assert data.read_text(write(tmp_path, "e\u0301tude\n".encode() * 10)).train[0].startswith("étude\n")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_broken_utf_8_names_the_line(tmp_path, mark, end):
    path = write(tmp_path, mark + end.join([b"first", b"second", b"\xe9t\xe9"]))
    with pytest.raises(InputError, match=r"line 3: no UTF-8 \(byte 0xe9\); save it as UTF-8, or"):
        data.read_text(path)
    corpus = data.read_text(path, errors="replace")
    assert "".join([*corpus.train, *corpus.validation, *corpus.test]) == "first\nsecond\n�t�"


def test_texts_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match="no such file or directory"):
        data.read_text(tmp_path / "none.txt")
    with pytest.raises(InputError, match="0 characters; three splits need at least 10"):
        data.read_text(write(tmp_path, b""))
    with pytest.raises(InputError, match="line 1: no UTF-8"):
        data.read_text(write(tmp_path, b"A text \xff of some length"))
    with pytest.raises(InputError, match="errors 'ignore'"):
        data.read_text(write(tmp_path, b"A text of some length"), errors="ignore")


@pytest.mark.parametrize("read", [data.read_pairs, data.read_text])
def test_utf_16_is_told_apart(tmp_path, read):
    path = write(tmp_path, "Go.\tVa !\nHi.\tSalut !\n".encode("utf-16"), "excel.txt")
    with pytest.raises(InputError, match="UTF-16; save it as UTF-8"):
        read(path)
    without_mark = write(tmp_path, "Go.\tVa !\nHi.\tSalut !\n".encode("utf-16-le"), "plain.txt")
    with pytest.raises(InputError, match="a NUL"):
        read(without_mark)
