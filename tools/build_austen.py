"""Build `kseq/data/files/austen.txt.xz` from two novels of Jane Austen.

Source: the Debian package `r-cran-janeaustenr` 1.0.0-1 (texts of Project Gutenberg); `--root` is where it was
installed or unpacked:

    apt-get download r-cran-janeaustenr && dpkg-deb -x r-cran-janeaustenr_*.deb root
    python tools/build_austen.py --root root

Kept are the chapters of Pride and Prejudice (61) and Emma (55, counted through its three volumes), without title pages,
headings and "FINIS". The lines of a paragraph become one line (those of verse stay), runs of spaces one space; the
marks of italics (_) and the rows of stars go. Quotation marks and dashes (--) are those of the package.

The file has the chapters between form feeds; the first line of each is `split novel, chapter`, with split v for
chapters 6, 18, 30, 42 and 54 (validation), e for 12, 24, 36, 48 and 60 (evaluation), else t (training). Behind it come
the paragraphs, an empty line between them.
"""

import argparse
import lzma
import re
import struct
import zlib
from pathlib import Path

OUTPUT = Path(__file__).parents[1] / "kseq" / "data" / "files" / "austen.txt.xz"


def read_novels(path: Path) -> list[str]:
    """The character vectors in a lazy-load database of R, their elements as lines."""
    content, novels = path.read_bytes(), []
    while content:  # records: a size of 4 bytes and a zlib stream
        stream = zlib.decompressobj()
        record, content = stream.decompress(content[4:]), stream.unused_data
        start = record.index(struct.pack(">I", 16))  # the vector's type; behind it come its length and its elements
        count, start = struct.unpack(">I", record[start + 4 : start + 8])[0], start + 8
        lines = []
        for _ in range(count):  # flags, length in bytes, bytes
            length = max(struct.unpack(">i", record[start + 4 : start + 8])[0], 0)
            lines.append(record[start + 8 : start + 8 + length].decode())
            start += 8 + length
        novels.append("\n".join(lines))
    return novels


def chapters(novel: str) -> list[str]:
    novel = re.sub(r"\n(VOLUME [IVX]+|FINIS)(?=\n|$)", "\n", novel)
    return re.split(r"\nchapter [\dIVX]+\n", novel, flags=re.IGNORECASE)[1:]


def clean(chapter: str) -> str:
    """The paragraphs of a chapter, an empty line between them."""
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", chapter.replace("_", "").strip("\n")):
        lines = [" ".join(line.split()) for line in paragraph.split("\n")]
        verse = re.match(r"\s", paragraph)
        if re.search(r"\w", paragraph):
            paragraphs.append(("\n" if verse else " ").join(lines))
    return "\n\n".join(paragraphs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("/"), help="where r-cran-janeaustenr was unpacked")
    root = parser.parse_args().root
    novels = read_novels(root / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb")
    parts = []
    for title in ("Pride and Prejudice", "Emma"):
        novel = next(novel for novel in novels if novel.startswith(title.upper()))
        for number, chapter in enumerate(chapters(novel), 1):
            split = {6: "v", 0: "e"}.get(number % 12, "t")
            parts.append(f"{split} {title}, {number}\n{clean(chapter)}")
    OUTPUT.write_bytes(lzma.compress("\f".join(parts).encode(), preset=9 | lzma.PRESET_EXTREME))
    for split in "tve":
        sizes = [len(part.split("\n", 1)[1]) for part in parts if part[0] == split]
        print(f"{split}: {len(sizes)} chapters, {sum(sizes):,} characters")
    print(f"{OUTPUT.stat().st_size:,} bytes in {OUTPUT}")


if __name__ == "__main__":
    main()
