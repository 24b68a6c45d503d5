"""MedMNIST: small medical images with a class, from its files."""

import os
from pathlib import Path

import numpy as np

from kseq.data.dataset import DataSet, Entry
from kseq.data.volumes import reason
from kseq.errors import InputError

ENTRY = Entry(
    name="med_mnist",
    task="medical image or volume → class",
    size="18 sets, 28×28 to 224×224",
    source="Yang et al. 2023, a file",
    licence="CC BY 4.0 (most sets)",
)


def med_mnist(path: str | os.PathLike, class_names: tuple[str, ...] | None = None) -> DataSet:
    """A set of MedMNIST v2 (medmnist.com) in its published split, from its file (pathmnist.npz, organmnist3d.npz, …).

    The file holds `{train,val,test}_images`, uint8 `(samples, *space)` or `(samples, *space, 3)`, and
    `{train,val,test}_labels`, `(samples, 1)`.

    Source: Yang et al., "MedMNIST v2: a large-scale lightweight benchmark for 2D and 3D biomedical image
    classification", Scientific Data 10, 2023.

    Args:
        path: the .npz file.
        class_names: the names of the classes, which the file does not tell; "0", "1", … by default.

    Returns:
        A `DataSet` whose inputs are uint8 `(samples, *space, channels)`.

    Raises:
        InputError: if the file cannot be read or is not as above, has several labels an image (ChestMNIST), or there
            are more classes than names.
    """
    path = Path(path)
    try:
        with np.load(path) as content:
            parts = [(content[f"{name}_images"], content[f"{name}_labels"]) for name in ("train", "val", "test")]
    except Exception as error:  # whatever damaged bytes make zip raise
        raise InputError(f"{path}: not read as MedMNIST ({reason(error)}); give a .npz of medmnist.com") from error
    splits = []
    for images, labels in parts:
        if images.ndim < 3 or len(images) != len(labels) or not len(images):
            raise InputError(f"{path}: images {images.shape} with labels {labels.shape}; copy the file again")
        if labels.ndim > 2 or labels.reshape(len(labels), -1).shape[1] != 1:
            raise InputError(f"{path}: {labels.shape[1]} labels for an image; sets with one class each are allowed")
        coloured = images.ndim > 3 and images.shape[-1] == 3
        splits.append((images if coloured else images[..., None], labels.reshape(-1).astype("int32")))
    classes = 1 + max(int(targets.max()) for _, targets in splits)
    names = tuple(map(str, range(classes))) if class_names is None else tuple(class_names)
    if classes > len(names):
        raise InputError(f"class_names: {len(names)} names for {classes} classes of {path.name}; name them all")
    return DataSet(*splits, names, f"MedMNIST v2 (Yang et al. 2023), {path.name}; licence: {ENTRY.licence}")
