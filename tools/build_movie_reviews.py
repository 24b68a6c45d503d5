"""Build `kseq/data/files/movie_reviews.tsv.xz` from the sentences that were rated for VADER.

Source: the source distribution of the Python package vaderSentiment 3.3.2 (the wheel lacks the sentences):

    pip download --no-deps --no-binary vaderSentiment vaderSentiment==3.3.2
    python tools/build_movie_reviews.py --package vaderSentiment-3.3.2.tar.gz

Read is `movieReviewSnippets_GroundTruth.txt` in `additional_resources/hutto_ICWSM_2014.tar.gz`. Its numbers run from 1
to 10,605 and say nothing of the review. Changed are `&amp;` into &, and runs of spaces (dashes were there) into one.

The file has a line a sentence, in the package's order: `split rating text`, between tabs, with split t, v or e
(training, validation, evaluation). The split, 80/10/10, is stratified by the sign of the rating and whether it is at
least 1 in size. Sentences that differ only in case, spaces or punctuation are put into the same split.
"""

import argparse
import html
import io
import lzma
import re
import tarfile
from collections import Counter
from pathlib import Path

from sklearn.model_selection import train_test_split

RESOURCES = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
SENTENCES = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
OUTPUT = Path(__file__).parents[1] / "kseq" / "data" / "files" / "movie_reviews.tsv.xz"


def read_sentences(package: Path) -> list[tuple[float, str]]:
    """Rating and text of each sentence."""
    with tarfile.open(package) as outer:
        resources = outer.extractfile(RESOURCES).read()
    with tarfile.open(fileobj=io.BytesIO(resources)) as inner:
        lines = inner.extractfile(SENTENCES).read().decode().splitlines()
    rows = (line.split("\t") for line in lines)
    return [(float(rating), " ".join(html.unescape(text).split())) for _, rating, text in rows]


def kind(rating: float) -> str:
    return ("positive" if rating > 0 else "negative") + (" and clear" if abs(rating) >= 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, default=Path("vaderSentiment-3.3.2.tar.gz"), help="the sdist")
    sentences = read_sentences(parser.parse_args().package)

    kinds = {}  # of the texts without case, spaces and punctuation
    for rating, text in sentences:
        kinds.setdefault(bare(text), kind(rating))
    train, rest = train_test_split(list(kinds), test_size=0.2, stratify=list(kinds.values()), random_state=0)
    validation, test = train_test_split(rest, test_size=0.5, stratify=[kinds[text] for text in rest], random_state=0)
    split = dict.fromkeys(train, "t") | dict.fromkeys(validation, "v") | dict.fromkeys(test, "e")

    lines = "".join(f"{split[bare(text)]}\t{rating:.4f}\t{text}\n" for rating, text in sentences)
    OUTPUT.write_bytes(lzma.compress(lines.encode(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{len(sentences):,} sentences: {Counter((split[bare(text)], kind(rating)) for rating, text in sentences)}")
    print(f"{OUTPUT.stat().st_size:,} bytes in {OUTPUT}")


def bare(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


if __name__ == "__main__":
    main()
