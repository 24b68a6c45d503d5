"""Images with label maps that lie in files, read one at a time when they are asked for."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from kseq.data.dataset import Entry
from kseq.data.volumes import NIFTI, read_volume
from kseq.errors import InputError, shorten

BTCV = Entry(
    name="btcv",
    task="abdominal CT → 13 organs",
    size="30 volumes, 14 classes",
    source="Landman et al. 2015 (Synapse), a folder",
    licence="on registration at synapse.org",
)
BTCV_NAMES = (
    "background",
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "oesophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior vena cava",
    "portal and splenic vein",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
)
APART = 0.1  # millimetres by which a voxel of the labels may lie elsewhere than that of the image


@dataclass(frozen=True)
class Sample:
    """An image with the class of each pixel.

    Attributes:
        name: of the case.
        image: `(*space, channels)`, in the type of the file.
        labels: uint8 `(*space)`, indices into the class names; `None` where there are none.
        spacing: millimetres between neighbours along each axis of the space.
    """

    name: str
    image: np.ndarray
    labels: np.ndarray | None
    spacing: tuple[float, ...]


class Cases(Sequence):
    """A list of samples, each read from its files when it is taken out, and checked.

    Args:
        files: for each case its name, the path of the image and that of the labels (or `None`; or the same, if one file
            holds both).
        class_names: the name of each class, from 0.
        read: `read(image_path, labels_path) -> (image, labels, spacing)`.

    Raises:
        InputError: when a sample is taken out whose files cannot be read, whose image and labels differ in size, or
            whose labels are no whole numbers below the number of classes; the message names the file.
    """

    def __init__(self, files: Sequence[tuple[str, Path, Path | None]], class_names: tuple[str, ...], read: Callable):
        self.files = tuple(files)
        self.class_names = tuple(class_names)
        self.read = read

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Cases(self.files[index], self.class_names, self.read)
        name, image_path, labels_path = self.files[index]
        image, labels, spacing = self.read(image_path, labels_path)
        if labels is not None:
            if labels.shape != image.shape[:-1]:
                raise InputError(
                    f"{labels_path}: labels of size {labels.shape}, its image {image_path.name} is of size "
                    f"{image.shape[:-1]}; give the labels of this image"
                )
            labels = as_classes(labels, self.class_names, labels_path)
        return Sample(name, image, labels, spacing)

    def __repr__(self) -> str:
        return f"Cases({len(self)} of {len(self.class_names)} classes)"


def as_classes(labels: np.ndarray, class_names: tuple[str, ...], path: Path) -> np.ndarray:
    """The labels of a file, whole numbers of any type, as uint8, if each is the index of a class."""
    values = np.unique(labels)
    fits = (values >= 0) & (values < len(class_names)) & (values == np.floor(values))  # NaN does not
    wrong = values[~fits].tolist()
    if wrong:
        raise InputError(
            f"{path}: the labels {shorten(str(wrong[:10]), 100)} are not among the {len(class_names)} classes, 0 to "
            f"{len(class_names) - 1}; give the names of all classes, or mend the labels"
        )
    return labels.astype("uint8")


def read_nifti_pair(image_path: Path, labels_path: Path | None) -> tuple[np.ndarray, np.ndarray | None, tuple]:
    """Image `(depth, height, width, channels)`, labels `(depth, height, width)` and spacing of two files."""
    image = read_volume(image_path)
    values = image.values if image.values.ndim == 4 else image.values[..., None]
    labels = None
    if labels_path is not None:
        mask = read_volume(labels_path)
        labels = mask.values
        same = labels.shape == values.shape[:-1]
        apart = farthest_apart(labels.shape, mask.affine, image.affine) if same else 0.0
        if apart > APART:
            raise InputError(
                f"{labels_path}: lies elsewhere in space than its image {image_path.name}, by up to {apart:.3g} mm: "
                "spacing, direction or origin differ; resample the labels to the image"
            )
    return values, labels, image.spacing


def farthest_apart(shape: tuple[int, ...], one: np.ndarray, other: np.ndarray) -> float:
    """The largest distance between the positions that two affines give to a voxel: that of a corner of the grid."""
    corners = np.array([(*corner, 1) for corner in product(*((0, size - 1) for size in shape))])  # (8, 4)
    return float(np.linalg.norm(corners @ (one - other)[:3].T, axis=1).max())


def stem(path: Path) -> str:
    """The name without ".nii.gz" and other endings."""
    ending = next((end for end in NIFTI[::-1] if path.name.lower().endswith(end)), path.suffix)
    return path.name.removesuffix(path.name[len(path.name) - len(ending) :])


def list_files(folder: str | os.PathLike, endings: tuple[str, ...], layout: str) -> list[Path]:
    """The files of a folder with one of the endings, in the order of their names; at least one."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"folder {folder}: there is none; {layout}")
    found = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    paths = sorted(path for path in found if path.name.lower().endswith(endings))
    if not paths:
        raise InputError(f"folder {folder}: no files {', '.join('*' + end for end in endings)} in it; {layout}")
    return paths


def btcv(folder: str | os.PathLike) -> Cases:
    """The abdominal CTs of "Multi-Atlas Labeling Beyond the Cranial Vault" with 13 organs, as they are distributed.

        folder/img/img0001.nii.gz       (or imagesTr/)
        folder/label/label0001.nii.gz   (or labelsTr/)

    Args:
        folder: `averaged-training-images`' parent, or the unpacked `RawData/Training`.

    Returns:
        `Cases` in Hounsfield units, in the order of their numbers.

    Raises:
        InputError: if the folder is not laid out so, or an image has no labels.
    """
    folder = Path(folder)
    layout = "give the folder Training of BTCV's RawData.zip, with img/img*.nii.gz and label/label*.nii.gz"
    images, labels = (
        {stem(path).lower().removeprefix(head): path for path in list_files(place, NIFTI, layout)}
        for head, names in (("img", ("img", "imagesTr")), ("label", ("label", "labelsTr")))
        for place in [next((folder / name for name in names if (folder / name).is_dir()), folder / names[0])]
    )
    for number, path in images.items():
        if number not in labels:
            raise InputError(f"{path}: no label{number}.nii.gz beside it; {layout}")
    return Cases([(number, path, labels[number]) for number, path in images.items()], BTCV_NAMES, read_nifti_pair)
