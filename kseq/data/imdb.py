"""Film reviews of IMDB: from the folder of their texts, or the words that Keras downloads."""

import re
from pathlib import Path

import numpy as np

from kseq.data.dataset import Arrays, DataSet, Entry
from kseq.data.movie_reviews import CLASS_NAMES
from kseq.errors import InputError, KseqError

ENTRY = Entry(
    name="imdb",
    task="review → sentiment",
    size="50,000 reviews, 2 classes",
    source="Maas et al. 2011, downloaded or a folder",
    licence="none stated",
)
FIRST_WORD = 3  # the number that Keras adds to those of the words; below are padding, start and unknown


def imdb(folder: str | Path | None = None) -> DataSet:
    """Reviews of films on IMDB, 22,500/2,500/25,000, half of them positive (7 to 10 stars), half negative (1 to 4).

    The test reviews are the published ones, on other films than the rest; validation is a fixed, stratified tenth of
    the published training reviews.

    Without a folder Keras downloads 19 MB into its own folder at first use: reviews as numbers of words, here written
    out again. They have no punctuation and no capital letters, and the rarest word is missing. With a folder the texts
    are the original ones, with spaces for runs of white space and `<br />`; they make the better figures.

    Source: Maas, Daly, Pham, Huang, Ng & Potts, "Learning word vectors for sentiment analysis", ACL 2011.

    Args:
        folder: what https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz unpacks to, with
            `{train,test}/{pos,neg}/*.txt`.

    Returns:
        A `DataSet` whose inputs are object arrays of strings `(reviews,)`, targets indices into
        `("negative", "positive")`.

    Raises:
        InputError: if the folder lacks one of the four, one has no reviews, or a review is not UTF-8.
        KseqError: if the download fails.
    """
    train, test = _download() if folder is None else _read(Path(folder))
    train, validation = _divide(train)
    return DataSet(train, validation, test, CLASS_NAMES, f"{ENTRY.source}; licence: {ENTRY.licence}")


def _read(folder: Path) -> tuple[Arrays, Arrays]:
    if not (folder / "train").is_dir() and (folder / "aclImdb").is_dir():
        folder = folder / "aclImdb"
    splits = []
    for split in ("train", "test"):
        texts, targets = [], []
        for target, name in enumerate(("neg", "pos")):
            paths = sorted((folder / split / name).glob("*.txt"))
            if not paths:
                raise InputError(
                    f"folder {folder}: no reviews {split}/{name}/*.txt; give what aclImdb_v1.tar.gz unpacks to"
                )
            texts += map(_text, paths)
            targets += [target] * len(paths)
        splits.append((np.array(texts, dtype=object), np.array(targets, dtype="int32")))
    return tuple(splits)


def _text(path: Path) -> str:
    try:
        return " ".join(re.sub(r"<br\s*/?>", " ", path.read_text(encoding="utf-8")).split())
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: no UTF-8 (byte {error.start}); unpack aclImdb_v1.tar.gz again") from None


def _download() -> tuple[Arrays, Arrays]:
    import keras

    try:
        splits = keras.datasets.imdb.load_data(index_from=FIRST_WORD)
        words = {index + FIRST_WORD: word for word, index in keras.datasets.imdb.get_word_index().items()}
    except Exception as error:  # whatever a broken connection or a damaged file makes Keras raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise KseqError(
            f"imdb: Keras cannot download or read it ({reason}); connect to the internet, or copy "
            "~/.keras/datasets from a machine that has it; remove what is damaged there"
        ) from error
    return tuple((_join(numbers, words), np.asarray(targets).astype("int32")) for numbers, targets in splits)


def _join(reviews: np.ndarray, words: dict[int, str]) -> np.ndarray:
    texts = (" ".join(words[number] for number in review if number in words) for review in reviews)
    return np.array(list(texts), dtype=object)


def _divide(arrays: Arrays) -> tuple[Arrays, Arrays]:
    """Nine tenths of the reviews, and one tenth, the classes in proportion, in their order."""
    from sklearn.model_selection import train_test_split

    inputs, targets = arrays
    if len(targets) < 20:
        raise InputError(f"folder: {len(targets)} training reviews; a tenth of them for validation needs at least 20")
    parts = train_test_split(np.arange(len(targets)), test_size=0.1, stratify=targets, random_state=0)
    return tuple((inputs[part], targets[part]) for part in map(np.sort, parts))
