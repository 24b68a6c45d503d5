"""A folder of images and one of masks: PNG, TIFF or NIfTI files with the same names."""

import io
import os
from pathlib import Path

import numpy as np

from kseq.data.medical_folders import Cases, list_files, read_nifti_pair, stem
from kseq.data.volumes import NIFTI, reason
from kseq.errors import InputError

PICTURES = (".png", ".tif", ".tiff")


def image_pairs(
    images_folder: str | os.PathLike, masks_folder: str | os.PathLike, class_names: tuple[str, ...]
) -> Cases:
    """Images and masks that have the same name in two folders, read one at a time.

        images_folder/a.png    masks_folder/a.tif
        images_folder/b.png    masks_folder/b.png

    Images are PNG or TIFF of grey values or colours, in 8 or 16 bits, or NIfTI volumes. Masks are images of one
    channel (or of a palette) that hold at each pixel the number of its class, or NIfTI volumes. Pictures tell no
    spacing: 1.0 along each axis.

    Args:
        images_folder: the folder of the images.
        masks_folder: the folder of the masks.
        class_names: the name of each class, from 0.

    Returns:
        `Cases` in the order of their names.

    Raises:
        InputError: if a folder is missing or empty, an image has no mask or a mask no image, or two files have the
            same name but for the ending.
    """
    layout = "give a folder of images and one of masks"
    images, masks = (_by_stem(list_files(folder, PICTURES + NIFTI, layout)) for folder in (images_folder, masks_folder))
    for these, those, folder in ((images, masks, masks_folder), (masks, images, images_folder)):
        lonely = sorted(these.keys() - those.keys())
        if lonely:
            raise InputError(
                f"{these[lonely[0]]}: nothing with this name in {folder} ({len(lonely)} such); add or remove it"
            )
    return Cases([(name, path, masks[name]) for name, path in images.items()], class_names, _read)


def read_picture(source: str | os.PathLike | bytes, name: str = "image") -> np.ndarray:
    """A PNG or TIFF file, or the bytes of one, as an array `(height, width)` or `(height, width, 3)`.

    The numbers of a palette, 16 bits and floats stay as they are stored; transparency is dropped.

    Raises:
        InputError: if it cannot be read, is damaged or has several pages.
    """
    from PIL import Image

    if not isinstance(source, bytes):
        name = str(source)
    try:
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        with Image.open(io.BytesIO(content), formats=("PNG", "TIFF")) as image:
            pages = getattr(image, "n_frames", 1)
            if image.mode in ("LA", "RGBA", "CMYK", "YCbCr", "LAB"):
                image = image.convert("L" if image.mode == "LA" else "RGB")
            values = np.array(image)
    except Exception as error:  # whatever damaged bytes make Pillow raise
        raise InputError(f"{name}: no PNG or TIFF image, or damaged ({reason(error)}); save it again") from error
    if pages != 1:
        raise InputError(f"{name}: {pages} pages; save each as an image of its own, or the volume as NIfTI")
    return values.astype("uint8") if values.dtype == bool else values


def _by_stem(paths: list[Path]) -> dict[str, Path]:
    found = {}
    for path in paths:
        if stem(path) in found:
            raise InputError(f"{path}: {found[stem(path)].name} has the same name; remove one of them")
        found[stem(path)] = path
    return found


def _read(image_path: Path, mask_path: Path) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    volumes = [path.name.lower().endswith(NIFTI) for path in (image_path, mask_path)]
    if all(volumes):
        return read_nifti_pair(image_path, mask_path)
    if any(volumes):
        raise InputError(f"{mask_path}: its image is {image_path.name}; give both as NIfTI or both as pictures")
    image, mask = read_picture(image_path), read_picture(mask_path)
    if mask.ndim != 2:
        raise InputError(f"{mask_path}: has colours; give a mask of one channel with the number of each pixel's class")
    return (image if image.ndim == 3 else image[..., None]), mask, (1.0, 1.0)
