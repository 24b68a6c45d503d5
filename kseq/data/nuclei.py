"""Nuclei of cells under a fluorescence microscope, from the example of the package stardist."""

import os
import zipfile
from pathlib import Path

import numpy as np

from kseq.data.dataset import Entry
from kseq.data.download import download
from kseq.data.image_pairs import read_picture
from kseq.data.segmentation_set import SegmentationSet
from kseq.data.volumes import reason
from kseq.errors import InputError

ENTRY = Entry(
    name="nuclei",
    task="microscope image → nuclei",
    size="16 tiles, 128×128, 2 classes",
    source="Data Science Bowl 2018 (Caicedo et al. 2019), in stardist",
    licence="BSD 3-Clause (of the package)",
)
FOLDER = "stardist/data/images"
URL = (
    "https://files.pythonhosted.org/packages/4a/41/1552e918b9c79d46f878f65fb7fd1594ade491cfa7782c2732ccd4a70209/"
    "stardist-0.9.2-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl"
)
SHA256 = "2316c0feb7bd5621e7a277cb3868df475c338943c591925c420ee3622c42f023"
SIZE, TILE = 512, 128  # pixels


def nuclei(path: str | os.PathLike | None = None) -> SegmentationSet:
    """One fluorescence image of 125 nuclei with their mask, in 16 tiles: 8 of training, 4 of validation, 4 of test.

    The image of 512 × 512 pixels is cut in four rows of four tiles of 128 × 128: the upper two rows train, the third
    validates, the last tests. A nucleus on an edge between them is in two splits. The mask tells nucleus from nucleus;
    here all are one class, and those that touch are one piece.

    It is the example of the Python package stardist, which names the Data Science Bowl 2018 as its source: Caicedo et
    al., "Nucleus segmentation across imaging experiments", Nature Methods 16, 2019. One image: good for a demonstration
    and for tests of a pipeline, not for figures.

    Args:
        path: the wheel of stardist, or the folder in which the package is installed (the parent of `stardist/`). By
            default the wheel (3 MB) is downloaded from PyPI, once; nothing of it is run.

    Returns:
        A `SegmentationSet` of images uint8 `(tiles, 128, 128, 1)`, classes "background" and "nucleus".

    Raises:
        InputError: if the path holds no such image.
        KseqError: if the download fails.
    """
    path = download(URL, sha256=SHA256) if path is None else Path(path)
    image, mask = (_read(path, name) for name in ("img2d.tif", "mask2d.tif"))
    if image.shape != (SIZE, SIZE) or mask.shape != image.shape or image.max() > 255:
        raise InputError(f"{path}: image {image.shape}, mask {mask.shape}; those of stardist 0.9.2 are (512, 512)")
    images, labels = _tiles(image.astype("uint8"))[..., None], _tiles((mask > 0).astype("uint8"))
    splits = ((images[part], labels[part]) for part in (slice(8), slice(8, 12), slice(12, 16)))
    licence = f"{ENTRY.source}; licence: {ENTRY.licence}"
    return SegmentationSet(*splits, ("background", "nucleus"), (1.0, 1.0), licence)


def _read(path: Path, name: str) -> np.ndarray:
    try:
        if path.is_dir():
            content = (path / FOLDER / name).read_bytes()
        else:
            with zipfile.ZipFile(path) as archive:
                content = archive.read(f"{FOLDER}/{name}")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: no {FOLDER}/{name} in it ({reason(error)}); give the wheel of stardist") from error
    return read_picture(content, f"{path}: {name}")


def _tiles(image: np.ndarray) -> np.ndarray:
    across = SIZE // TILE
    return image.reshape(across, TILE, across, TILE).swapaxes(1, 2).reshape(-1, TILE, TILE)
