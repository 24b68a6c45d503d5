"""The abdominal CTs "Synapse" as TransUNet prepared them, the set of most papers on 2-D segmentation of organs."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kseq.data.dataset import Entry
from kseq.data.medical_folders import Cases, list_files
from kseq.data.volumes import library, reason
from kseq.errors import InputError

ENTRY = Entry(
    name="synapse",
    task="abdominal CT slice → 8 organs",
    size="2,211 slices and 12 volumes, 9 classes",
    source="Chen et al. 2021 from BTCV, a folder",
    licence="on registration at synapse.org",
)
CLASS_NAMES = (
    "background",
    "aorta",
    "gallbladder",
    "left kidney",
    "right kidney",
    "liver",
    "pancreas",
    "spleen",
    "stomach",
)


@dataclass(frozen=True)
class Synapse:
    """Slices to train on and volumes to test on.

    Attributes:
        train: `Cases` of slices, images `(height, width, 1)`.
        test: `Cases` of volumes, images `(depth, height, width, 1)`.
        class_names: the name of each class index.
        source: where the data come from.
    """

    train: Cases
    test: Cases
    class_names: tuple[str, ...]
    source: str


def synapse(folder: str | os.PathLike, class_names: tuple[str, ...] = CLASS_NAMES) -> Synapse:
    """Slices and volumes of CT with 8 organs, in the layout of TransUNet, read one at a time.

        folder/train_npz/case0005_slice000.npz   arrays image and label, (512, 512)
        folder/test_vol_h5/case0001.npy.h5       data sets image and label, (slices, 512, 512)

    Values are clipped to -125 to 275 Hounsfield units and scaled to 0–1, float32. The files hold no spacing: it is 1.0
    for every axis, so distances (Hausdorff) on them are in pixels, as in the papers. Slices of the same case are near
    copies: divide by case (`name.split("_")[0]`), not by slice.

    Source: Chen et al., "TransUNet: transformers make strong encoders for medical image segmentation", 2021 (arXiv
    2102.04306): 18 training and 12 test cases of BTCV.

    Args:
        folder: the folder with both.
        class_names: of the labels; for sets that were prepared in the same layout with others.

    Returns:
        A `Synapse`.

    Raises:
        InputError: if one of the two is missing or empty.
    """
    folder = Path(folder)
    layout = "give the folder with train_npz/*.npz and test_vol_h5/*.npy.h5"
    slices = list_files(folder / "train_npz", (".npz",), layout)
    volumes = list_files(folder / "test_vol_h5", (".npy.h5",), layout)
    return Synapse(
        train=Cases([(path.stem, path, path) for path in slices], class_names, _read),
        test=Cases([(path.name.removesuffix(".npy.h5"), path, path) for path in volumes], class_names, _read),
        class_names=tuple(class_names),
        source=f"{ENTRY.source}; licence: {ENTRY.licence}",
    )


def _read(path: Path, _: Path) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    try:
        if path.suffix == ".npz":
            with np.load(path) as content:
                image, labels = content["image"], content["label"]
        else:
            with library("h5py").File(path) as content:
                image, labels = content["image"][()], content["label"][()]
    except InputError:
        raise
    except Exception as error:  # whatever damaged bytes make zip and HDF5 raise
        raise InputError(f"{path}: damaged, or without image and label ({reason(error)}); copy it again") from error
    return image.astype("float32")[..., None], labels, (1.0,) * image.ndim
