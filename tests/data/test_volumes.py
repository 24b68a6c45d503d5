import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from kseq import data
from kseq.errors import InputError

SHAPE = (3, 4, 5)  # depth, height, width


def write_nifti(path, values, axes="RAS", spacing=(0.5, 0.75, 2.0), origin=(10.0, -20.0, 30.0)):
    """`values` `(depth, height, width)` of our orientation, stored with other axes; `spacing` is of x, y and z."""
    towards = {"R": (2, -1), "L": (2, 1), "A": (1, -1), "P": (1, 1), "S": (0, 1), "I": (0, -1)}  # our axis, direction
    world = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    order = [towards[letter][0] for letter in axes]
    stored = np.transpose(values, (*order, *range(3, values.ndim)))
    affine = np.eye(4)
    affine[:3, :3] = 0
    affine[:3, 3] = origin
    for column, letter in enumerate(axes):
        axis, sign = world[letter]
        affine[axis, column] = sign * spacing[axis]
        if towards[letter][1] < 0:
            stored = np.flip(stored, column)
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(stored), affine), path)
    return path


def write_dicom(path, pixels, place, *, series="1.2.3", orientation=(1, 0, 0, 0, 1, 0), spacing=(0.75, 0.5), **others):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, pydicom.uid.generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slice_ = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    slice_.SeriesInstanceUID, slice_.Modality = series, "CT"
    slice_.ImagePositionPatient, slice_.ImageOrientationPatient = list(place), list(orientation)
    slice_.PixelSpacing, (slice_.Rows, slice_.Columns) = list(spacing), pixels.shape
    slice_.SamplesPerPixel, slice_.PhotometricInterpretation, slice_.PixelRepresentation = 1, "MONOCHROME2", 0
    slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit = 16, 16, 15
    slice_.PixelData = pixels.astype("<u2").tobytes()
    for name, value in others.items():
        setattr(slice_, name, value)
    slice_.save_as(path, enforce_file_format=True)
    return path


def write_series(folder, values, places=None, **others):
    folder.mkdir(exist_ok=True)
    places = [(-10.0, -20.0, 30.0 + 2 * i) for i in range(len(values))] if places is None else places
    for i, (pixels, place) in enumerate(zip(values, places, strict=True)):
        write_dicom(folder / f"{(7 * i) % 11}.dcm", pixels, place, **others)  # names not in their order
    return folder


def numbered() -> np.ndarray:
    return np.arange(np.prod(SHAPE), dtype="int16").reshape(SHAPE)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "PSR", "SLA", "AIR"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_nifti_of_any_axes_comes_in_one_orientation(tmp_path, axes, ending):
    volume = data.read_volume(write_nifti(tmp_path / f"a{ending}", numbered(), axes))
    np.testing.assert_array_equal(volume.values, numbered())
    assert volume.values.dtype == np.int16
    assert volume.spacing == pytest.approx((2.0, 0.75, 0.5))
    step = volume.affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]).T
    np.testing.assert_allclose(step[:3].T, [[0, 0, 2], [0, -0.75, 0], [-0.5, 0, 0]], atol=1e-6)  # up, back, left


def test_voxels_stay_where_they_are_in_space(tmp_path):
    """An oblique NIfTI file: each voxel's value is found at the same millimetres as nibabel has it."""
    turn = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]]) @ np.diag([-0.5, 0.75, 2])
    affine = nibabel.affines.from_matvec(turn, (3, 4, 5))
    values = numbered()
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "a.nii")
    volume = data.read_volume(tmp_path / "a.nii")
    for index in np.ndindex(volume.values.shape):
        there = np.linalg.solve(affine, volume.affine @ (*index, 1))
        assert values[tuple(np.rint(there[:3]).astype(int))] == volume.values[index]
        np.testing.assert_allclose(there, np.rint(there), atol=1e-6)


def test_scaled_values_and_channels(tmp_path):
    image = nibabel.Nifti1Image(numbered().astype("float64"), np.eye(4))
    image.header.set_data_dtype("uint8")
    image.header.set_slope_inter(2.0, -10.0)
    nibabel.save(image, tmp_path / "a.nii")
    values = data.read_volume(tmp_path / "a.nii").values
    assert values.dtype == np.float32
    stored = np.asarray(nibabel.load(tmp_path / "a.nii").dataobj.get_unscaled())
    np.testing.assert_allclose(np.sort(values.ravel()), np.sort(2.0 * stored.ravel() - 10))
    assert stored.dtype == np.uint8
    several = np.stack([numbered(), 100 + numbered()], axis=-1)
    np.testing.assert_array_equal(data.read_volume(write_nifti(tmp_path / "b.nii", several)).values, several)


def test_dicom_is_sorted_scaled_and_the_same_as_nifti(tmp_path):
    stored = numbered().astype("uint16") + 1_000
    folder = write_series(tmp_path / "ct", stored, RescaleSlope=2, RescaleIntercept=-1024)
    (folder / "notes.txt").write_text("no slice")
    (folder / "DICOMDIR").write_text("no slice")
    volume = data.read_volume(folder)
    np.testing.assert_array_equal(volume.values, 2.0 * stored - 1024)
    assert volume.values.dtype == np.float32
    assert volume.spacing == pytest.approx((2.0, 0.75, 0.5))
    nifti = write_nifti(tmp_path / "a.nii", numbered(), "LPS", origin=(10.0, 20.0, 30.0))
    np.testing.assert_allclose(volume.affine, data.read_volume(nifti).affine, atol=1e-6)


def test_sagittal_dicom_is_turned(tmp_path):
    """Rows go to the back, columns to the feet, slices to the left, as sagittal series are taken."""
    values = numbered()
    sagittal = np.flip(values.transpose(2, 0, 1), axis=1)  # (left, inferior, posterior)
    places = [(0.5 * i, 0.0, 4.0) for i in range(5)]
    folder = write_series(
        tmp_path / "mr", sagittal, places, orientation=(0, 1, 0, 0, 0, -1), spacing=(2.0, 0.75), Modality="MR"
    )
    volume = data.read_volume(folder)
    np.testing.assert_array_equal(volume.values, values)
    assert volume.spacing == pytest.approx((2.0, 0.75, 0.5))


def test_one_of_several_series(tmp_path):
    folder = write_series(tmp_path / "ct", numbered())
    write_dicom(folder / "other.dcm", numbered()[0], (0, 0, 0), series="1.2.4", SliceThickness=5)
    with pytest.raises(InputError, match=r"2 series: .*1.2.3 \(3 slices\), 1.2.4 \(1 slices\)"):
        data.read_volume(folder)
    assert data.read_volume(folder, series="1.2.3").values.shape == SHAPE
    assert data.read_volume(folder, series="1.2.4").spacing[0] == 5
    with pytest.raises(InputError, match="series '9'"):
        data.read_volume(folder, series="9")


UP = [(0.0, 0.0, 2.0 * i) for i in range(4)]


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([UP[0], UP[1], UP[3]], "3.dcm: 4 mm above 7.dcm, where the others are 2 mm apart"),
        ([(0, 0, 0), (0, 0, 2), (0, 0, 2)], "7.dcm: at the same position as 3.dcm"),
        ([(0, 0, 0), (0, 0.5, 2), (0, 1, 4)], "shifted sideways against .* \\(tilted gantry\\)"),
    ],
)
def test_slices_that_make_no_volume_are_refused(tmp_path, places, message):
    with pytest.raises(InputError, match=message):
        data.read_volume(write_series(tmp_path / "ct", numbered(), places))


def test_a_missing_slice_is_named(tmp_path):
    folder = write_series(tmp_path / "ct", np.zeros((7, 4, 5)))
    missing = next(path for path in folder.iterdir() if pydicom.dcmread(path).ImagePositionPatient[2] == 36.0)
    missing.unlink()
    with pytest.raises(InputError, match="4 mm above .*, where the others are 2 mm apart; a slice is missing"):
        data.read_volume(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"orientation": (0, 1, 0, 0, 0, -1)}, "odd.dcm: its ImageOrientationPatient is"),
        ({"spacing": (1.0, 1.0)}, "odd.dcm: its PixelSpacing is"),
        ({"NumberOfFrames": 3}, "odd.dcm: has colours or several frames"),
        ({"ImagePositionPatient": None}, "odd.dcm: no ImagePositionPatient"),
        ({"PixelData": b"\0\0"}, "odd.dcm: its pixels cannot be read"),
    ],
)
def test_a_slice_that_does_not_fit_is_named(tmp_path, changes, message):
    folder = write_series(tmp_path / "ct", numbered())
    write_dicom(folder / "odd.dcm", numbered()[0], (-10.0, -20.0, 36.0), **changes)
    with pytest.raises(InputError, match=message):
        data.read_volume(folder)


def test_slices_of_another_size_or_without_spacing_are_refused(tmp_path):
    folder = write_series(tmp_path / "ct", numbered())
    write_dicom(folder / "odd.dcm", np.zeros((4, 6)), (-10.0, -20.0, 36.0))
    with pytest.raises(InputError, match="odd.dcm: its Columns is 6.0, that of .* 5.0"):
        data.read_volume(folder)
    with pytest.raises(InputError, match="spacing .* positive numbers"):
        data.read_volume(write_series(tmp_path / "zero", numbered(), spacing=(0.0, 1.0)))


def test_damaged_and_missing_files_are_named(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 9_999, (9, 9, 9)).astype("int16"))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="a.nii.gz: cannot be read"):
        data.read_volume(path)
    (tmp_path / "b.nii").write_bytes(b"no image")
    with pytest.raises(InputError, match="b.nii: cannot be read"):
        data.read_volume(tmp_path / "b.nii")
    with pytest.raises(InputError, match="c.nii: no such file"):
        data.read_volume(tmp_path / "c.nii")
    (tmp_path / "d.mha").write_bytes(b"")
    with pytest.raises(InputError, match="d.mha: .nii and .nii.gz are allowed"):
        data.read_volume(tmp_path / "d.mha")
    folder = write_series(tmp_path / "ct", numbered())
    (folder / "x.dcm").write_bytes(b"no slice")
    with pytest.raises(InputError, match="x.dcm: not DICOM, or damaged"):
        data.read_volume(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: no DICOM slices"):
        data.read_volume(tmp_path / "empty")


@pytest.mark.parametrize("spacing", [0.0, float("nan"), float("inf")])
def test_spacing_that_is_none_is_refused(tmp_path, spacing):
    image = nibabel.Nifti1Image(numbered(), None)
    image.header["pixdim"][2] = spacing
    nibabel.save(image, tmp_path / "a.nii")
    with pytest.raises(InputError, match="a.nii: (spacing|its matrix)"):
        data.read_volume(tmp_path / "a.nii")


def test_other_axes_are_refused(tmp_path):
    for shape in ((4, 5), (2, 2, 2, 2, 2)):
        nibabel.save(nibabel.Nifti1Image(np.zeros(shape, "uint8"), np.eye(4)), tmp_path / "a.nii")
        with pytest.raises(InputError, match="a.nii: shape .* three axes"):
            data.read_volume(tmp_path / "a.nii")


def test_the_window():
    values = np.array([-2_000, -125, 75, 275, 3_000], "int16")
    scaled = data.window(values)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, [0, 0, 0.5, 1, 1])
    np.testing.assert_allclose(data.window(values, -2_000, 0), [0, 0.9375, 1, 1, 1])
    with pytest.raises(InputError, match="window 5 to 5"):
        data.window(values, 5, 5)


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    import sys

    path = write_nifti(tmp_path / "a.nii", numbered())
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(InputError, match=r"nibabel is not installed; pip install 'kseq\[medical\]'"):
        data.read_volume(path)
