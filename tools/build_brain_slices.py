"""Build `kseq/data/files/brain_slices.xz`, T1 images of two heads with labels, from a Debian and a Python package.

Sources, whose terms are shipped beside the data:
- Debian package `mricron-data` 1.2.20211006+dfsg-4, /usr/share/mricron/templates: ch2 (the T1 image of one man, the
  mean of 27 scans, "Colin27"), ch2bet (its brain alone) and aal (116 regions drawn on it), 181 × 217 × 181 of 1 mm.
- wheel of nilearn 0.14.1, nilearn/datasets/data: the mean T1 image of 152 heads (ICBM 2009a, asymmetric), and how
  probable grey and white matter are in each voxel, 197 × 233 × 189 of 1 mm.

    apt-get download mricron-data && dpkg -x mricron-data_*.deb root && pip download --no-deps nilearn==0.14.1
    python tools/build_brain_slices.py root nilearn-0.14.1-*.whl

The file is xz of four uint8 arrays `(94, 128, 96)`, one behind the other: image and labels of regions, image and labels
of tissues. Axes point to superior, posterior and left, in steps of 1.5 mm, on the same grid of the space in which both
heads lie (MNI). Images are interpolated linearly, labels by the largest interpolated share.
"""

import argparse
import gzip
import lzma
import zipfile
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

OUTPUT = Path(__file__).parents[1] / "kseq" / "data" / "files" / "brain_slices.xz"
SHAPE = (94, 128, 96)  # superior, posterior, left
STEP = 1.5  # mm
CORNER = (71.25, 78.5, -57.5)  # mm to the right, front and top of the origin: the centre of the first voxel
TEMPLATES = "nilearn/datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
GROUPS = {  # by the first part of the names of AAL; the first that fits
    "frontal lobe": "Precentral Frontal Rolandic Supp_Motor Olfactory Rectus Paracentral",
    "parietal lobe": "Postcentral Parietal SupraMarginal Angular Precuneus",
    "temporal lobe": "Temporal Heschl Fusiform",
    "occipital lobe": "Calcarine Cuneus Lingual Occipital",
    "insula": "Insula",
    "limbic lobe": "Cingulum Hippocampus ParaHippocampal Amygdala",
    "basal ganglia": "Caudate Putamen Pallidum",
    "thalamus": "Thalamus",
    "cerebellum": "Cerebelum Vermis",
}
PROBABLE = 85  # of 255: a voxel of the brain with less grey and less white matter is of another kind


def group(name: str) -> int:
    """The number of the group of an AAL region, from 1."""
    return next(i for i, heads in enumerate(GROUPS.values(), 1) if name.startswith(tuple(heads.split())))


def resample(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The values at the points of our grid, float32 `SHAPE`; `affine` leads from voxels of `volume` to mm."""
    ours = np.zeros((4, 4))  # from (superior, posterior, left) to (right, front, top) in mm
    ours[0, 2] = ours[1, 1] = -STEP
    ours[2, 0] = STEP
    ours[:3, 3], ours[3, 3] = CORNER, 1
    return ndimage.affine_transform(volume.astype("float32"), np.linalg.inv(affine) @ ours, output_shape=SHAPE, order=1)


def resample_labels(labels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    shares = [resample(labels == label, affine) for label in range(labels.max() + 1)]
    return np.argmax(shares, axis=0).astype("uint8")


def regions(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    image, brain, atlas = (nibabel.load(folder / f"{name}.nii.gz") for name in ("ch2", "ch2bet", "aal"))
    table = np.zeros(256, "uint8")
    for line in (folder / "aal.nii.txt").read_text().splitlines():
        if line.strip():
            number, name = line.split()[:2]
            table[int(number)] = group(name)
    labels = table[np.asarray(atlas.dataobj)]
    inside = (np.asarray(brain.dataobj) > 0) | (labels > 0)
    inside = ndimage.binary_opening(inside, iterations=3)  # the mask has streaks below the frontal lobe
    labels[(labels == 0) & inside] = len(GROUPS) + 1
    grey = np.asarray(image.dataobj)
    print("regions: intensities up to", grey.max())
    return np.rint(resample(grey, image.affine)).astype("uint8"), resample_labels(labels, image.affine)


def tissues(wheel: Path) -> tuple[np.ndarray, np.ndarray]:
    with zipfile.ZipFile(wheel) as archive:
        content = (gzip.decompress(archive.read(TEMPLATES.format(name))) for name in ("t1", "gm", "wm"))
        image, grey, white = (nibabel.Nifti1Image.from_bytes(file) for file in content)
    affine = image.affine
    image, grey, white = (np.asarray(volume.dataobj) for volume in (image, grey, white))
    labels = np.where(image > 0, 3, 0).astype("uint8")
    labels[(grey >= white) & (grey > PROBABLE)] = 1
    labels[(white > grey) & (white > PROBABLE)] = 2
    print("tissues: intensities up to", image.max())
    return np.rint(resample(image, affine)).astype("uint8"), resample_labels(labels, affine)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="where mricron-data was unpacked")
    parser.add_argument("wheel", type=Path, help="the wheel of nilearn 0.14.1")
    arguments = parser.parse_args()
    arrays = [*regions(arguments.root / "usr/share/mricron/templates"), *tissues(arguments.wheel)]
    for name, labels in (("regions", arrays[1]), ("tissues", arrays[3])):
        slices, rows, columns = (np.flatnonzero(labels.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
        print(name, np.bincount(labels.ravel()), [(part[0], part[-1]) for part in (slices, rows, columns)])
    content = b"".join(array.tobytes() for array in arrays)
    OUTPUT.write_bytes(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    print(f"{OUTPUT.stat().st_size:,} bytes in {OUTPUT}")


if __name__ == "__main__":
    main()
