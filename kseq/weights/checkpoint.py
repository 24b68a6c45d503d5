"""Reading a checkpoint, whatever its format, into NumPy arrays by name. No file gets to run code."""

import os
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kseq.errors import InputError, shorten

NESTED = ("state_dict", "model")  # under which training scripts keep the weights, beside epoch and optimizer


def read(checkpoint: str | os.PathLike | Mapping[str, object]) -> tuple[str, dict[str, np.ndarray]]:
    """The tensors of a checkpoint, and what to call it in a message.

    Half precision becomes float32, which holds it exactly; all else keeps its type.

    Args:
        checkpoint: a `.pth`, `.pt`, `.safetensors` or `.npz` file, or names to NumPy arrays or PyTorch tensors.

    Raises:
        InputError: if the file is missing, of another format, damaged, or would run code; if the package that reads
            it is not installed; if it holds anything but tensors.
    """
    if isinstance(checkpoint, Mapping):
        source, content = "checkpoint", checkpoint
    elif isinstance(checkpoint, str | os.PathLike):
        path = Path(checkpoint)
        reader = READERS.get(path.suffix.lower())
        if reader is None:
            raise InputError(f"checkpoint {path}: give a {', '.join(READERS)} file, or a dict of arrays")
        if not path.is_file():
            raise InputError(f"checkpoint {path}: no such file; give a {', '.join(READERS)} file")
        source, content = str(path), reader(path)
    else:
        raise InputError(f"checkpoint {shorten(checkpoint)}: give a path or a dict of arrays")
    for key in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{source}: holds no tensors by name ({type(content).__name__}); save a state_dict()")
    return source, {str(name): _array(value, str(name), source) for name, value in content.items()}


def _array(value: object, name: str, source: str) -> np.ndarray:
    if hasattr(value, "detach"):  # a PyTorch tensor, perhaps on a device, perhaps bfloat16, which NumPy lacks
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() and value.itemsize < 4 else value).numpy()
    array = np.asarray(value)
    if array.dtype.kind in "OUSM":
        raise InputError(f"{source}: {name} is no tensor ({type(value).__name__}); give the state_dict() alone")
    is_half = array.dtype == np.float16 or array.dtype.name == "bfloat16"
    return array.astype("float32") if is_half else array


def _read_torch(path: Path) -> object:
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"checkpoint {path}: reading it needs PyTorch; pip install 'kseq[torch]', or convert it to .safetensors"
        ) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"checkpoint {path}: holds more than plain tensors, which could run code, or is damaged, and is refused; "
            "save its state_dict() alone"
        ) from error
    except Exception as error:  # whatever a damaged file makes torch raise
        raise _damaged(path, error) from error


def _read_safetensors(path: Path) -> object:
    try:
        import ml_dtypes  # noqa: F401  NumPy knows bfloat16 from then on
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise InputError(f"checkpoint {path}: reading it needs safetensors; pip install 'kseq[safetensors]'") from error
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def _read_npz(path: Path) -> object:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise InputError(
                f"checkpoint {path}: holds Python objects, which could run code, and is refused; save plain arrays"
            ) from error
        raise _damaged(path, error) from error
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, AttributeError, TypeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return InputError(f"checkpoint {path}: cannot be read ({reason[:90]}); save or copy it again")


READERS = {".pth": _read_torch, ".pt": _read_torch, ".safetensors": _read_safetensors, ".npz": _read_npz}
