"""Volumes of medical scanners: NIfTI files and folders of DICOM slices, brought to one orientation."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kseq.errors import InputError, shorten

NIFTI = (".nii", ".nii.gz")
DICOM = (".dcm", ".ima", "")  # of files that must be slices; others in a series' folder are passed over
AXES = ("S", "P", "L")  # superior, posterior, left
EVEN = 0.01  # the share by which distances between slices may differ
SAME = {"ImageOrientationPatient": 1e-4, "PixelSpacing": 1e-4, "Rows": 0, "Columns": 0}  # by how much slices may differ
NEEDED = (*SAME, "SeriesInstanceUID", "ImagePositionPatient", "PixelData")


@dataclass(frozen=True)
class Volume:
    """A scan in the orientation in which radiologists look at it.

    Attributes:
        values: `(depth, height, width)`, or `(depth, height, width, channels)`. Slices go from feet to head, rows from
            front to back, columns from the patient's right to the left, as nearly as the scan's own axes allow (it is
            turned by whole axes, never interpolated).
        spacing: millimetres between neighbours along depth, height and width.
        affine: `(4, 4)`, leads from `(depth, height, width, 1)` indices to millimetres to the right, front and top
            (NIfTI's world, RAS+).
    """

    values: np.ndarray
    spacing: tuple[float, float, float]
    affine: np.ndarray


def read_volume(path: str | os.PathLike, *, series: str | None = None) -> Volume:
    """Read a NIfTI file, or the folder of a DICOM series.

    Integers of a NIfTI file that has no scale stay what they are; with one, and of DICOM always, values are float32,
    a·stored + b. For CT this gives Hounsfield units. DICOM slices are sorted by their position, not by name or number.

    In a folder, the files that end in .dcm or .ima, or have no ending, must be DICOM slices; others are passed over.

    Args:
        path: `*.nii`, `*.nii.gz` or a folder.
        series: the SeriesInstanceUID to read where a folder holds several.

    Raises:
        InputError: if the file cannot be read or is damaged, its spacing is zero, negative or no number, or it has no 3
            axes (4 with channels); for DICOM, if slices are missing, doubled or unevenly spaced, differ in size,
            spacing or orientation, are shifted against each other (tilted gantry), are of several series, or have
            colours. The message names the file.
    """
    path = Path(path)
    if path.is_dir():
        return _read_dicom(path, series)
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder; give a NIfTI file or the folder of a DICOM series")
    if not path.name.lower().endswith(NIFTI):
        raise InputError(f"{path}: .nii and .nii.gz are allowed, or the folder of a DICOM series")
    nibabel = library("nibabel")
    try:
        image = nibabel.load(path)
        values = np.asarray(image.dataobj)
        affine = np.array(image.affine, "float64")
        with nibabel.openers.ImageOpener(path) as file:  # as it is stored: load takes a spacing of zero for 1
            spacing = np.array(type(image.header).from_fileobj(file, check=False).get_zooms()[:3], "float64")
    except Exception as error:  # whatever damaged bytes make nibabel raise
        raise InputError(f"{path}: cannot be read ({reason(error)}); copy or convert it again") from error
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim not in (3, 4) or 0 in values.shape:
        raise InputError(f"{path}: shape {values.shape}; give three axes, or four with channels")
    if values.dtype.kind not in "iuf":
        raise InputError(f"{path}: {values.dtype} values; whole numbers and floats are allowed")
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise InputError(f"{path}: spacing {tuple(spacing.tolist())} mm; mend its header: positive numbers are allowed")
    if values.dtype == np.float64:
        values = values.astype("float32")
    return orient(values, affine, path)


def orient(values: np.ndarray, affine: np.ndarray, path: Path) -> Volume:
    """Turn and mirror axes until they are those of a `Volume`; `affine` leads from indices to RAS+ millimetres."""
    orientations = library("nibabel").orientations
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not (lengths > 0).all() or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-3:
        raise InputError(f"{path}: its matrix from voxels to millimetres has zeros, NaN or parallel axes; mend it")
    turn = orientations.ornt_transform(orientations.io_orientation(affine), orientations.axcodes2ornt(AXES))
    turned = affine @ orientations.inv_ornt_aff(turn, values.shape[:3])
    spacing = tuple(np.linalg.norm(turned[:3, :3], axis=0).tolist())
    return Volume(np.ascontiguousarray(orientations.apply_orientation(values, turn)), spacing, turned)


def window(values: np.ndarray, low: float = -125.0, high: float = 275.0) -> np.ndarray:
    """Clip to `[low, high]` and scale to 0–1, float32: (min(max(x, low), high) - low) / (high - low).

    The default is the window on abdominal organs of TransUNet (Chen et al. 2021), in Hounsfield units.

    Raises:
        InputError: unless low < high.
    """
    if not low < high:
        raise InputError(f"window {shorten(low)} to {shorten(high)}: the first must be smaller")
    return (np.clip(np.asarray(values, "float32"), low, high) - np.float32(low)) / np.float32(high - low)


def library(name: str):
    """Import nibabel, pydicom or h5py, or say how to get it."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{name} is not installed; pip install 'kseq[medical]'") from error


def reason(error: Exception) -> str:
    """The first line of what a library says of a file."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _read_dicom(folder: Path, series: str | None) -> Volume:
    slices = _slices(folder, series)
    first_path, first = slices[0]
    for path, dataset in slices:
        for name, tolerance in SAME.items():
            here, there = (np.asarray(getattr(one, name), "float64") for one in (dataset, first))
            if here.shape != there.shape or not (np.abs(here - there) <= tolerance).all():
                raise InputError(
                    f"{path}: its {name} is {here.tolist()}, that of {first_path.name} {there.tolist()}; "
                    "put the slices of one series alone into the folder"
                )
    spacing = np.array(first.PixelSpacing, "float64")
    along_row, along_column = np.array(first.ImageOrientationPatient, "float64").reshape(2, 3)
    normal = np.cross(along_row, along_column)
    places = [float(normal @ np.array(dataset.ImagePositionPatient, "float64")) for _, dataset in slices]
    order = np.argsort(places, kind="stable")
    slices = [slices[i] for i in order]
    step = _step(slices, np.array(places)[order], normal)
    if not (np.isfinite([*spacing, step]).all() and min(*spacing, step) > 0):
        raise InputError(f"{first_path}: spacing {(step, *spacing.tolist())} mm; positive numbers are allowed")
    values = np.stack([_pixels(path, dataset) for path, dataset in slices])  # (slices, rows, columns)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([normal * step, along_column * spacing[0], along_row * spacing[1]], axis=1)
    affine[:3, 3] = np.array(slices[0][1].ImagePositionPatient, "float64")
    affine[:2] *= -1  # DICOM counts to the left and back, NIfTI to the right and front
    return orient(values, affine, folder)


def _slices(folder: Path, series: str | None) -> list:
    """Path and content of each slice of the series, unsorted."""
    pydicom = library("pydicom")
    found = []
    for path in sorted(folder.iterdir()):
        hidden = path.name.startswith(".") or path.name.upper() == "DICOMDIR"
        ending = path.suffix.lower()  # a name that is a UID seems to end in a number
        if hidden or not path.is_file() or not (ending in DICOM or ending[1:].isdigit()):
            continue
        try:
            dataset = pydicom.dcmread(path)
        except Exception as error:  # whatever damaged bytes make pydicom raise
            raise InputError(f"{path}: not DICOM, or damaged ({reason(error)}); remove or copy it again") from error
        missing = [name for name in NEEDED if getattr(dataset, name, None) in (None, "")]
        if missing:
            raise InputError(f"{path}: no {', '.join(missing)}; give the slices of a CT or MR series, remove others")
        if getattr(dataset, "SamplesPerPixel", 1) != 1 or int(getattr(dataset, "NumberOfFrames", 1) or 1) != 1:
            raise InputError(f"{path}: has colours or several frames; give a series of single grey slices")
        found.append((path, dataset))
    if not found:
        raise InputError(f"{folder}: no DICOM slices (*.dcm) in it; give the folder of a series")
    counts = Counter(str(dataset.SeriesInstanceUID) for _, dataset in found)
    if series is None and len(counts) > 1:
        listed = ", ".join(f"{name} ({count} slices)" for name, count in counts.items())
        raise InputError(f"{folder}: slices of {len(counts)} series: {shorten(listed, 400)}; give one by series=")
    if series is not None and series not in counts:
        raise InputError(f"series {shorten(series)}: {folder} has {', '.join(counts)}")
    return [pair for pair in found if series in (None, str(pair[1].SeriesInstanceUID))]


def _step(slices: list, places: np.ndarray, normal: np.ndarray) -> float:
    """The distance between neighbouring slices, if it is the same everywhere."""
    if len(slices) == 1:
        dataset = slices[0][1]
        told = (getattr(dataset, name, None) for name in ("SpacingBetweenSlices", "SliceThickness"))
        return float(next((value for value in told if value is not None), 1.0))
    gaps = np.diff(places)
    step = float(min((gap for gap in gaps if gap >= 1e-3), default=0.0))
    for (before, one), (after, other), gap in zip(slices, slices[1:], gaps, strict=False):
        if gap < 1e-3:
            raise InputError(f"{after}: at the same position as {before.name}; remove one of them")
        if abs(gap - step) > EVEN * step:
            raise InputError(
                f"{after}: {gap:.4g} mm above {before.name}, where the others are {step:.4g} mm apart; a slice is "
                "missing or the spacing uneven: complete the series or resample it"
            )
        moved = np.array(other.ImagePositionPatient, "float64") - np.array(one.ImagePositionPatient, "float64")
        if np.linalg.norm(moved - gap * normal) > max(EVEN * step, 1e-3):
            raise InputError(f"{after}: shifted sideways against {before.name} (tilted gantry); resample the series")
    return step


def _pixels(path: Path, dataset) -> np.ndarray:
    try:
        stored = dataset.pixel_array
    except Exception as error:  # compressed by what is not installed, or cut short
        raise InputError(f"{path}: its pixels cannot be read ({reason(error)}); copy or convert it again") from error
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    return stored.astype("float32") * np.float32(slope) + np.float32(intercept)
