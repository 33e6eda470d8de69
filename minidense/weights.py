"""Weights that others have published, into our models: safetensors or torch's own files, under torchvision's names old and new."""

import re
from pathlib import Path

import numpy
import safetensors

from .checkpoint import MODEL, VELOCITY
from .errors import CheckpointError
from .nn import Module
from .torch_files import START, is_torch_file, numbers_in, one_line, read_torch_file

# torchvision's DenseNets of 2017 have norm.1 where norm1 is meant; so does their own loader rewrite them.
OLD_LAYER = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)")

DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "bfloat16",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U8": "|u1",
    "BOOL": "|b1",
}


def load_weights(model: Module, path: str | Path) -> None:
    """Copy the weights in a file into a model, converted to its float type and device.

    path  a .safetensors file, or .pth or .pt as torch.save writes it; what it is called does not matter. Names are those of
          torchvision and timm (of 2017, too), or our own: weights.safetensors and last.safetensors of a run folder will do

    Raises CheckpointError when the file cannot be read, or with a list of every array that does not fit; then nothing has changed.
    """
    arrays = our_names(read(path))
    try:
        model.load_state_dict(converted(model, arrays))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def read(path: str | Path) -> dict[str, numpy.ndarray]:
    """The arrays in a file of either kind, under the names it gives them; bfloat16 becomes float32. Raises CheckpointError."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path}: not a file")
        with open(path, "rb") as file:
            start = file.read(START)
            if is_torch_file(start):
                return read_torch_file(path)
            # safetensors: the length of the header in eight bytes, then the header, which is JSON
            if start[8:9] != b"{":
                raise CheckpointError(f"{path}: neither a safetensors file nor one of torch.save")
            tensors = safetensors.deserialize(start + file.read())
        return {name: array_of(tensor) for name, tensor in tensors}
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors: {one_line(error)}") from None


def array_of(tensor: dict) -> numpy.ndarray:
    """A tensor as safetensors hands it out, {"dtype", "shape", "data"}; the library has compared their lengths."""
    if tensor["dtype"] not in DTYPES:
        raise ValueError(f"numbers of type {tensor['dtype']}, of which no network here is made")
    return numbers_in(tensor["data"], DTYPES[tensor["dtype"]]).reshape(tensor["shape"])


def our_names(arrays: dict[str, numpy.ndarray]) -> dict[str, numpy.ndarray]:
    """The model's arrays under the names that our models have. Raises CheckpointError when two become one.

    What is rewritten: denselayer1.norm.1 (torchvision, 2017); norm_final (Pleiss's efficient DenseNet); the prefix "module." of
    PyTorch's DataParallel; "model." of our checkpoints, whose velocities are left out.
    """
    names = list(arrays)
    if names and all(name.startswith((MODEL, VELOCITY)) for name in names):
        names = [name for name in names if name.startswith(MODEL)]
    prefix = next((p for p in (MODEL, "module.") if names and all(name.startswith(p) for name in names)), "")
    renamed: dict[str, numpy.ndarray] = {}
    for name in names:
        new = OLD_LAYER.sub(r"\1\2", name.removeprefix(prefix)).replace("features.norm_final.", "features.norm5.")
        if new in renamed:
            raise CheckpointError(f"two arrays of the file are called {new} here, one of them {name} there")
        renamed[new] = arrays[name]
    return renamed


def converted(model: Module, arrays: dict[str, numpy.ndarray]) -> dict[str, numpy.ndarray]:
    """The arrays, in the model's float type where they fit.

    Raises CheckpointError for numbers that this type has not, and for whole ones or booleans in its place: those of a quantised
    network mean nothing without their scale. Counts of batches are whole in the model, too.
    """
    result = dict(arrays)
    for name, item in model.named_arrays():
        array, dtype = arrays.get(name), item.data.dtype
        if array is None:
            continue
        if dtype.kind == "f" and array.dtype.kind != "f":
            raise CheckpointError(
                f"{name} holds {array.dtype}, where the model computes in {dtype}. If its network was quantised, "
                "dequantise it; save it with floating-point weights"
            )
        if array.shape == item.data.shape and array.dtype.kind == "f":
            try:
                with numpy.errstate(over="raise"):
                    result[name] = array.astype(dtype)
            except FloatingPointError:
                raise CheckpointError(f"{name} holds numbers beyond {dtype}, which the model computes in") from None
    return result
