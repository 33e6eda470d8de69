"""Published weights: every name and shape is torchvision's, and with them our networks compute what PyTorch computes."""

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from minidense import Tensor, models, no_grad, ops
from minidense.checkpoint import Checkpoint, Progress, save_weights
from minidense.errors import CheckpointError
from minidense.optim import SGD
from minidense.speed import reference_only
from minidense.tensor import history
from minidense.weights import load_weights, our_names, read

try:
    import torch
    import torch.nn.functional as TF
except ImportError:
    torch = None

needs_torch = pytest.mark.skipif(torch is None, reason="compares with PyTorch: pip install torch==2.13.0")

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def full(table: dict) -> dict[str, tuple[int, ...]]:
    """{name: shape} from the short form of torchvision_statedicts.json.

    There a batch normalisation has its channels, a convolution the shape of its weight, and so has a linear layer, which has a bias.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in table.items():
        if isinstance(shape, int):
            shapes |= {f"{name}.{part}": (shape,) for part in NORM[:4]} | {f"{name}.{NORM[4]}": ()}
        else:
            shapes[f"{name}.weight"] = tuple(shape)
            if len(shape) == 2:
                shapes[f"{name}.bias"] = (shape[0],)
    return shapes


TORCHVISION = {
    name: full(table)
    for name, table in json.loads((Path(__file__).parent / "torchvision_statedicts.json").read_text()).items()
}


def ours(name: str) -> str:
    """Our name for a network of torchvision's; plain resnet18 would be one for CIFAR."""
    return name + "_imagenet" if name.startswith("resnet") else name


@pytest.mark.parametrize("name", TORCHVISION)
def test_names_shapes_and_their_order_are_torchvisions(name):
    state = models.create(ours(name)).state_dict()
    assert [(key, array.shape) for key, array in state.items()] == list(TORCHVISION[name].items())


# -- the same logits as PyTorch ---------------------------------------------------------------------------------------


def made_up(name: str, *, counts: bool = True) -> dict[str, np.ndarray]:
    """Weights and running statistics such that what passes through the network stays of order 1."""
    rng = np.random.default_rng(5)
    state = {}
    for key, shape in TORCHVISION[name].items():
        if key.endswith("num_batches_tracked"):
            array = np.array(1000)
        elif key.endswith("running_var") or (len(shape) == 1 and key.endswith("weight")):
            array = rng.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            array = rng.normal(0, 0.1, shape)
        else:
            array = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        if counts or array.dtype.kind == "f":
            state[key] = array.astype(np.float32) if array.dtype.kind == "f" else array
    return state


def in_torch(state, images):
    """Logits of a DenseNet or ResNet of torchvision's in evaluation mode, worked out from its state_dict alone."""
    state = {key: torch.from_numpy(array) for key, array in state.items()}

    def norm(x, at):
        weight, bias, mean, var = (state[f"{at}.{part}"] for part in NORM[:4])
        return TF.batch_norm(x, mean, var, weight, bias, eps=1e-5)

    def conv(x, at, stride=1):
        weight = state[f"{at}.weight"]
        return TF.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def numbered(form):
        """What there is of form(1), form(2), … or form(0), form(1), …"""
        return [form(i) for i in range(100) if any(key.startswith(form(i) + ".") for key in state)]

    x = torch.from_numpy(images)
    if "conv1.weight" in state:
        x = TF.max_pool2d(TF.relu(norm(conv(x, "conv1", 2), "bn1")), 3, 2, 1)
        for layer in numbered("layer{}".format):
            for unit in numbered((layer + ".{}").format):
                last = max(numbered((unit + ".conv{}").format))[-1]
                first, halves = unit.endswith(".0"), not layer.endswith("1")
                y = x
                for i in range(1, int(last) + 1):
                    # fb.resnet.torch and torchvision halve the picture in the 3×3 convolution: the first of two, the second of three.
                    stride = 2 if first and halves and i == int(last) - 1 else 1
                    y = norm(conv(y, f"{unit}.conv{i}", stride), f"{unit}.bn{i}")
                    y = y if i == int(last) else TF.relu(y)
                if f"{unit}.downsample.0.weight" in state:
                    x = norm(conv(x, f"{unit}.downsample.0", 2 if halves else 1), f"{unit}.downsample.1")
                x = TF.relu(x + y)
        return TF.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"]).numpy()
    x = TF.max_pool2d(TF.relu(norm(conv(x, "features.conv0", 2), "features.norm0")), 3, 2, 1)
    for i, block in enumerate(numbered("features.denseblock{}".format), start=1):
        for layer in numbered((block + ".denselayer{}").format):
            y = conv(TF.relu(norm(x, f"{layer}.norm1")), f"{layer}.conv1")
            x = torch.cat([x, conv(TF.relu(norm(y, f"{layer}.norm2")), f"{layer}.conv2")], 1)
        if f"features.transition{i}.conv.weight" in state:
            x = TF.avg_pool2d(conv(TF.relu(norm(x, f"features.transition{i}.norm")), f"features.transition{i}.conv"), 2)
    x = TF.relu(norm(x, "features.norm5")).mean((2, 3))
    return TF.linear(x, state["classifier.weight"], state["classifier.bias"]).numpy()


def old_names(state):
    """As in the files of 2017: denselayer1.norm.1.weight."""
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key): array for key, array in state.items()}


def to_torch(state):
    return {key: torch.from_numpy(array) for key, array in state.items()}


def write(state, form: str) -> Path:
    path = Path("weights")
    if form == "safetensors":
        safetensors.numpy.save_file(state, path)
    else:
        torch.save(to_torch(state), path, _use_new_zipfile_serialization=form == "zip")
    return path


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@needs_torch
@pytest.mark.parametrize(
    "name",
    [
        "densenet121",
        pytest.param("densenet169", marks=pytest.mark.slow),
        "resnet18",
        pytest.param("resnet50", marks=pytest.mark.slow),
    ],
)
def test_the_logits_are_pytorchs_whatever_the_file(name):
    """float32 sums of up to 18,000 terms, a hundred layers of them: 2e-6 of the largest logit has been seen, 1e-4 is refused."""
    rng = np.random.default_rng(1)
    batches = [rng.standard_normal(shape, np.float32) for shape in ((2, 3, 64, 64), (1, 3, 224, 224))]
    new = made_up(name)
    with torch.no_grad():
        expected = [in_torch(new, images) for images in batches]
    model = models.create(ours(name)).eval()
    for state in (new, old_names(made_up(name, counts=False))):
        for form in ("zip", "in a row", "safetensors"):
            for _, item in model.named_arrays():
                item.data[...] = 0
            load_weights(model, write(state, form))
            loaded = model.state_dict()
            assert all(loaded[key].tobytes() == new[key].tobytes() for key in new if not key.endswith("tracked"))
    for images, right in zip(batches, expected, strict=True):
        with no_grad():
            logits = model(Tensor(images)).numpy()
        assert right.std() > 0.1
        assert abs(logits - right).max() <= 1e-4 * abs(right).max()


# -- the same structure as another program's DenseNet-121 -------------------------------------------------------------


class Route:
    """Steps of a network in order, each (kind, options, where its inputs come from); concatenation is no step, it only adds up origins."""

    def __init__(self):
        self.steps, self.origins = [], {}

    def add(self, kind, options, inputs, output):
        self.origins[output] = (len(self.steps),)
        self.steps.append((kind, options, *(self.origins.get(name, ("images",)) for name in inputs)))

    def join(self, inputs, output):
        self.origins[output] = tuple(place for name in inputs for place in self.origins[name])


def steps_of_onnx(graph, helper, to_array):
    """Conv, BatchNormalization with its Mul and Add (Caffe's Scale), Relu, pools; the last 1×1 convolution is the linear layer."""
    shapes = {
        array.name: tuple(map(int, to_array(array))) for array in graph.initializer if array.name.endswith("__SHAPE")
    }
    found = Route()
    for node in graph.node:
        options = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        same = {tuple(options[key]) for key in ("strides", "pads", "kernel_shape") if key in options}
        # Everything is square.
        assert all(len(set(values)) == 1 for values in same)
        stride, padding, kernel = (options.get(key, [None])[0] for key in ("strides", "pads", "kernel_shape"))
        x, y = node.input[:1], node.output[0]
        match node.op_type:
            case "ConstantOfShape" | "Unsqueeze":
                pass
            case "Conv" if len(node.input) == 3:
                found.add("Linear", (shapes[node.input[1] + "__SHAPE"][:2],), x, y)
            case "Conv":
                weight = shapes[node.input[1] + "__SHAPE"]
                assert weight[2:] == (kernel, kernel)
                found.add("Conv2d", (weight, stride, padding), x, y)
            case "BatchNormalization":
                found.add("BatchNorm", (round(options["epsilon"], 9),), x, y)
            case "Mul" | "Add":  # the γ and β of the normalisation before it
                found.origins[y] = found.origins[x[0]]
            case "Concat":
                assert options["axis"] == 1
                found.join(node.input, y)
            case "Relu":
                found.add("ReLU", (), x, y)
            case "MaxPool":
                found.add("MaxPool2d", (kernel, stride, padding), x, y)
            case "AveragePool":
                assert padding == 0
                found.add("AvgPool2d", (kernel, stride), x, y)
            case "GlobalAveragePool":
                found.add("GlobalAvgPool2d", (), x, y)
    return found.steps


def steps_of_ours(model, size):
    """What the model's definition does with images of size×size in training."""
    with reference_only():
        order = history(model.train()(Tensor(np.zeros((2, 3, size, size), np.float32))))
    found = Route()
    for op in order:
        name, inputs = type(op).__name__, [x.source for x in op.inputs]
        weight = op.inputs[1].shape if len(op.inputs) > 1 else ()
        match op:
            case ops.Concat():
                found.join(inputs, op)
            case ops.Conv2d():
                found.add(name, (weight, op.stride, op.padding), inputs[:1], op)
            case ops.Linear():
                found.add(name, (weight,), inputs[:1], op)
            case ops.BatchNorm():
                found.add(name, (op.eps,), inputs[:1], op)
            case ops.MaxPool2d():
                found.add(name, (op.kernel, op.stride, op.padding), inputs, op)
            case ops.AvgPool2d():
                found.add(name, (op.kernel, op.stride), inputs, op)
            case _:
                found.add(name, (), inputs, op)
    return found.steps


def test_densenet_121_is_that_of_the_onnx_model_zoo_step_by_step():
    """Shapes, strides, paddings, ε, what is concatenated with what, and the order of everything (the model is in the onnx wheel)."""
    onnx = pytest.importorskip("onnx", reason="compares with a DenseNet-121 of the ONNX model zoo: pip install onnx")
    file = Path(onnx.__file__).parent / "backend/test/data/light/light_densenet121.onnx"
    theirs = steps_of_onnx(onnx.load(file).graph, onnx.helper, onnx.numpy_helper.to_array)
    mine = steps_of_ours(models.create("densenet121"), 64)
    assert len(mine) == 121 + 121 + 121 + 5  # convolutions and linear, norms, ReLUs, pools
    for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        assert a == b, f"step {i}"


# -- what files may look like -----------------------------------------------------------------------------------------


SMALL = "densenet_bc_10_4"


@pytest.fixture
def small():
    """A network whose values are all different, and its state_dict."""
    model = models.create(SMALL, seed=1)
    rng = np.random.default_rng(0)
    for _, item in model.named_arrays():
        # exact in every float type
        item.data[...] = rng.integers(-8, 8, item.data.shape)
    return model.state_dict()


def fresh():
    return models.create(SMALL, seed=2)


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(
        (a[key].dtype, a[key].tobytes()) == (b[key].dtype, b[key].tobytes()) for key in a
    )


def gpleiss(state):
    return {key.replace("norm5", "norm_final"): array for key, array in state.items()}


def with_prefix(state):
    return {f"module.{key}": array for key, array in state.items()}


def without_counts(state):
    return {key: array for key, array in state.items() if not key.endswith("num_batches_tracked")}


@pytest.mark.parametrize(
    "change", [dict, old_names, gpleiss, with_prefix, lambda s: with_prefix(old_names(gpleiss(s)))]
)
def test_names_of_other_programs_are_understood(change, small):
    model = fresh()
    load_weights(model, write(change(small), "safetensors"))
    assert same(model.state_dict(), small)


def test_the_counts_of_batches_may_be_missing(small):
    model = fresh()
    load_weights(model, write(without_counts(small), "safetensors"))
    loaded = model.state_dict()
    assert same(without_counts(loaded), without_counts(small))
    assert loaded["features.norm5.num_batches_tracked"] == 0


def test_our_own_files_are_understood(small):
    model = fresh()
    save_weights(small, "weights.safetensors")
    load_weights(model, "weights.safetensors")
    assert same(model.state_dict(), small)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    for parameter in model.parameters():
        parameter.grad = np.ones_like(parameter.data)
    optimizer.step()
    checkpoint = Checkpoint.of(model, optimizer, config={}, history=[], progress=Progress())
    checkpoint.save(Path("last.safetensors"))
    other = fresh()
    load_weights(other, "last.safetensors")
    assert same(other.state_dict(), model.state_dict())


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("into", ["float32", "float64"])
def test_float_types_are_converted(dtype, into, small):
    halved = {key: (array / 2).astype(dtype) if array.dtype.kind == "f" else array for key, array in small.items()}
    model = fresh().to(dtype=into)
    load_weights(model, write(halved, "safetensors"))
    for key, array in model.state_dict().items():
        assert array.dtype == (into if halved[key].dtype.kind == "f" else np.int64)
        assert (array == halved[key]).all()


@needs_torch
@pytest.mark.parametrize("form", ["zip", "in a row", "safetensors"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_float_types_of_torch_are_converted(form, dtype, small):
    from safetensors.torch import save_file

    state = {
        key: array.to(getattr(torch, dtype)) if array.is_floating_point() else array
        for key, array in to_torch(small).items()
    }
    if form == "safetensors":
        save_file(state, "weights")
    else:
        torch.save(state, "weights", _use_new_zipfile_serialization=form == "zip")
    model = fresh()
    load_weights(model, "weights")
    assert same(model.state_dict(), small)


@needs_torch
def test_a_training_program_s_file_is_understood(small):
    torch.save({"epoch": 90, "arch": "x", "state_dict": to_torch(with_prefix(small))}, "checkpoint.pth.tar")
    model = fresh()
    load_weights(model, "checkpoint.pth.tar")
    assert same(model.state_dict(), small)


@needs_torch
def test_loading_does_not_tie_the_model_to_the_file(small):
    torch.save(to_torch(small), "weights")
    arrays = read("weights")
    model = fresh()
    load_weights(model, "weights")
    for parameter in model.parameters():
        parameter.data += 1
    assert same(read("weights"), arrays)


# -- what is refused --------------------------------------------------------------------------------------------------


def refused(model, path) -> str:
    """The message of the refusal; the model is as it was."""
    before = model.state_dict()
    with pytest.raises(CheckpointError) as refusal:
        load_weights(model, path)
    assert same(model.state_dict(), before)
    return str(refusal.value)


FORMS = ["safetensors", pytest.param("zip", marks=needs_torch), pytest.param("in a row", marks=needs_torch)]


@pytest.mark.parametrize("form", FORMS)
def test_weights_that_do_not_fit_are_listed_and_change_nothing(form, small):
    del small["features.norm5.bias"]
    small["features.extra"] = np.ones(3, np.float32)
    small["classifier.weight"] = np.ones((7, 9), np.float32)
    message = refused(fresh(), write(small, form))
    assert message.splitlines() == [
        "weights: these weights do not fit this model:",
        "  missing     features.norm5.bias",
        "  unexpected  features.extra",
        "  shape       classifier.weight: the model has (10, 9), the file (7, 9)",
    ]


def test_numbers_that_the_model_cannot_hold_change_nothing(small):
    state = {key: array.astype(np.float64) if array.dtype.kind == "f" else array for key, array in small.items()}
    state["classifier.bias"][-1] = 1e39
    message = refused(fresh(), write(state, "safetensors"))
    assert message == "weights: classifier.bias holds numbers beyond float32, which the model computes in"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "bool"])
def test_whole_numbers_where_the_model_computes_in_floats_are_refused(form, dtype, small):
    """The weights of a quantised network mean nothing without their scale; the counts of batches are whole in the model, too."""
    small["classifier.weight"] = small["classifier.weight"].astype(dtype)
    assert refused(fresh(), write(small, form)) == (
        f"weights: classifier.weight holds {dtype}, where the model computes in float32. If its network was quantised, "
        "dequantise it; save it with floating-point weights"
    )


def test_whole_numbers_are_told_even_where_their_shape_does_not_fit(small):
    """Four bits a weight come two in a byte."""
    small["classifier.weight"] = np.zeros((10, 5), np.uint8)
    assert "classifier.weight holds uint8" in refused(fresh(), write(small, "safetensors"))


def test_weights_that_are_no_numbers_are_loaded_as_they_are(small):
    small["classifier.bias"][:3] = np.nan, np.inf, -np.inf
    model = fresh()
    load_weights(model, write(small, "safetensors"))
    assert model.state_dict()["classifier.bias"].tobytes() == small["classifier.bias"].tobytes()


def test_two_arrays_for_one_name_are_refused(small):
    small["features.norm_final.bias"] = small["features.norm5.bias"]
    message = refused(fresh(), write(small, "safetensors"))
    assert "two arrays of the file are called features.norm5.bias here" in message


def header(entries, data=b"") -> bytes:
    raw = json.dumps(entries).encode()
    return len(raw).to_bytes(8, "little") + raw + data


BROKEN = {
    "empty": (b"", "neither a safetensors file nor one of torch.save"),
    "text": (b"hello\n" * 50, "neither a safetensors file nor one of torch.save"),
    "a header of 2^62 bytes": ((2**62).to_bytes(8, "little") + b"{}", "cannot be read as safetensors"),
    "a header that is no JSON": ((4).to_bytes(8, "little") + b"{{{{", "cannot be read as safetensors"),
    "a header in a header": ((10**5).to_bytes(8, "little") + b'{"a":' * 20_000, "cannot be read as safetensors"),
    "arrays outside the file": (
        header({"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, b"1234"),
        "cannot be read as safetensors",
    ),
    "arrays of 8-bit floats": (
        header({"x": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}, b"1234"),
        "numbers of type F8_E4M3, of which no network here is made",
    ),
    "a pickle": (b"\x80\x02cos\nmkdir\nX\6\0\0\0canary\x85R." + bytes(60), "neither a safetensors file nor"),
    "a torn zip file": (b"PK\3\4" + bytes(100), "cannot be read as a file of torch.save: File is not a zip file"),
    "nothing in it": (header({}), "missing     features.conv0.weight"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_cannot_be_read_is_refused_by_name_whatever_its_name_says(name):
    raw, words = BROKEN[name]
    for path in ("weights.pth", "weights.safetensors"):
        Path(path).write_bytes(raw)
        message = refused(fresh(), path)
        assert message.startswith(f"{path}: ")
        assert words in message
    assert not Path("canary").exists()


def test_what_is_no_file_is_refused_by_name():
    assert refused(fresh(), "nowhere.pth") == "nowhere.pth: no such file"
    assert refused(fresh(), ".") == ".: not a file"


@pytest.mark.parametrize("form", FORMS)
def test_a_truncated_file_changes_nothing(form, small):
    raw = write(small, form).read_bytes()
    for share in (0.001, 0.1, 0.5, 0.9, 0.999):
        Path("cut").write_bytes(raw[: int(share * len(raw))])
        refused(fresh(), "cut")


def test_the_old_spelling_is_rewritten_only_in_dense_layers():
    """A network with a Sequential called norm keeps its names."""
    one = np.ones(1)
    assert our_names({"norm.1.weight": one, "features.denseblock1.denselayer12.conv.2.weight": one}).keys() == {
        "norm.1.weight",
        "features.denseblock1.denselayer12.conv2.weight",
    }


def test_steps_that_depend_on_each_other_are_told_apart():
    """The comparison of structures sees a concatenation in another order."""
    a, b = Route(), Route()
    for path, order in ((a, "xy"), (b, "yx")):
        path.add("Conv2d", (), ["images"], "x")
        path.add("Conv2d", (), ["x"], "y")
        path.join(order, "z")
        path.add("ReLU", (), ["z"], "r")
    assert [s == t for s, t in zip(a.steps, b.steps, strict=True)] == [True, True, False]
    assert all(s != t for s, t in pairwise(a.steps))
