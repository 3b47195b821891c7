"""Every reader of files from outside, with files to begin from: what the fuzzers mutate.

A reader gives a value or raises a LatlutError; any other error is a defect.
"""

from __future__ import annotations

import io
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

from latlut.errors import ImportFileError, LatlutError, SpecError
from latlut.files.strict_json import read_json
from latlut.operators.input_files import read_inputs
from latlut.operators.ir_files import read_ir
from latlut.operators.module_files import read_module
from latlut.operators.onnx_files import read_onnx
from latlut.opspec import OpSpec
from latlut.resources import profiles_dir
from latlut.search.data.class_file import open_class_file
from latlut.search.data.files import read_image
from latlut.search.deploy.video import VideoReader
from latlut.search.derive.published import read_published
from latlut.search.networks.cost import cost_of_onnx
from latlut.search.networks.model_files import ModelFacts
from latlut.search.runs.checkpoints import load_checkpoint
from latlut.search.train.settings import load_train_settings
from latlut.spaces import Architecture
from latlut.spaces.space import network_from_json
from latlut.table.authors_npy import read_fasterseg_npy
from latlut.table.entries_file import read_entries
from latlut.table.identity import Identity
from latlut.table.import_export import import_file
from latlut.table.table import LatencyTable
from latlut.validation.verdict import check


@dataclass(frozen=True)
class Reader:
    """How a kind of file is read.

    Attributes:
        suffix: of the file.
        read: what is done with it.
        seeds: gives whole files of that kind.
    """

    suffix: str
    read: Callable[[Path], object]
    seeds: Callable[[], Sequence[bytes]]


def accepts(reader: Reader, path: Path, content: bytes) -> bool:
    """Whether a file of that content is read; False where it is refused, as it may be."""
    path.write_bytes(content)
    try:
        reader.read(path)
    except LatlutError:
        return False
    return True


def _entries(path: Path) -> None:
    found = read_entries(path)
    if found.identity is not None:
        values = dict(found.identity)
        values.pop("shared_error", None)
        Identity.from_dict(values)


def _csv() -> list[bytes]:
    identity = Identity("cpu", "test", "none", "0").to_dict()
    head = "op_spec,latency_ms,ci_low_ms,ci_high_ms,n,passes,warnings"
    row = "conv 64->96 stride 1 at 8x16 kernel_size=5,1.25,1.2,1.3,20,5,"
    columns, cells = ",".join(identity), ",".join(map(str, identity.values()))
    return [
        f"{head},{columns}\n{row},{cells}\n".encode(),
        f"# identity: {json.dumps(identity)}\n{head}\n{row}\n".encode(),
        b"op_spec;latency_ms\nskip 8->16 stride 2 at 8x8;0,5\nconv 8,8->8 at 4x4,2x2;1,5\n",
        b"\xef\xbb\xbfop_spec\tlatency_ms\r\nconv 8->8 at 4x4\t1\r\n",
    ]


def _parquet() -> list[bytes]:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    metadata = {b"latlut_identity": json.dumps(Identity("cpu", "t", "n", "0").to_dict()).encode()}
    columns = {"op_spec": ["conv 8->8 at 4x4", "conv 8->9 at 4x4"], "latency_ms": [1.0, 2.0],
               "n": [3, None], "warnings": ["", None]}  # fmt: skip
    made = []
    for compression in ("none", "snappy", "zstd"):
        table = arrow.table(columns).replace_schema_metadata(metadata)
        parquet.write_table(table, buffer := io.BytesIO(), compression=compression)
        made.append(buffer.getvalue())
    return made


def _npy() -> list[bytes]:
    table = {"BasicResidual2x_H128_W256_Cin64_Cout96_stride2_dilation1": 1.5, "ff_H8_W16_C128": 0.5}
    made = []
    for values in (table, {key: np.float64(value) for key, value in table.items()}):
        np.save(buffer := io.BytesIO(), np.array(values, dtype=object), allow_pickle=True)
        made.append(buffer.getvalue())
    return made


def _plan(path: Path) -> None:
    from latlut.measure.plan_file import expand_plan, parse_plan

    content = parse_plan(path.read_bytes().decode("utf-8", "replace"), path.name)
    expand_plan(content, path.name, None, None, max_specs=200)


def _shipped(pattern: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(profiles_dir().glob(pattern))]


def _plans() -> list[bytes]:
    grid = (
        b'format = 1\nname = "mine"\nbatch = [1, 4]\nops = ["conv 8->8 at 4x4"]\n'
        b'[[grid]]\nkind = ["conv", "conv_2x"]\nin_channels = [64, 32]\nout_channels = 96\n'
        b'stride = [1, 2]\nsize = ["64x128", "8x8"]\ndilation = 2\n'
    )
    space = b'format = 1\ninput = "64x128"\n[space]\nname = "fasterseg"\nlayers = 4\nwidths = [4]\n'
    return [grid, space]


def _classes() -> list[bytes]:
    return [
        b'format = 1\nname = "yard"\nmasks = "ids"\nignore = [255]\n[[class]]\nname = "a"\n'
        b'colour = [1, 2, 3]\nvalues = [1, 2]\n[split.train]\nimages = "i"\nmasks = "m"\n'
        b'[split.val]\nimages = "i"\nmasks = "m"\n'
    ]


def _architecture(path: Path) -> None:
    Architecture.load(path).op_specs((64, 128))
    network_from_json(path.read_text(encoding="utf-8-sig"))


def _state() -> dict[str, object]:
    state: dict[str, object] = {}
    for scale, fewer in ((0, (0, 0, 1)), (1, (1, 2, 1)), (2, (2, 3, 2))):
        state[f"alpha_1_{scale}"] = torch.rand(6 - fewer[0], 5)
        state[f"beta_1_{scale}"] = torch.rand(6 - fewer[1], 2)
        state[f"ratio_1_{scale}"] = torch.rand(6 - fewer[2], 5)
    return state | {"mIoU02": 0.5, "mIoU12": 0.6, "latency02": 8.0, "latency12": 7.0}


def _torch_files(state: dict[str, object]) -> list[bytes]:
    made = []
    for is_zip in (True, False):
        torch.save(state, buffer := io.BytesIO(), _use_new_zipfile_serialization=is_zip)
        made.append(buffer.getvalue())
    return made


_CHECKPOINT_TYPES = {"epoch": int, "state": dict, "records": str}


def _checkpoint_files() -> list[bytes]:
    weights = {"a.weight": torch.rand(3, 2), "b.steps": torch.tensor(5)}
    head = {"format": "latlut checkpoint", "version": 1, "kind": "training"}
    return _torch_files({**head, "epoch": 3, "state": weights, "records": "[]"})


def _description(path: Path) -> None:
    values = read_json(path, "a description")
    if not isinstance(values, dict):
        raise ImportFileError(f"{path}: not a description")
    ModelFacts.from_dict(values)


def _descriptions() -> list[bytes]:
    own = json.loads((profiles_dir() / "architectures/fasterseg-student.json").read_text())
    facts = {
        "format": "latlut model", "version": 1, "kind": "architecture", "architecture": own,
        "num_classes": 2, "classes": ["a", "b"], "colours": [[0, 0, 0], [1, 2, 3]], "data": "d",
        "input_size": [64, 128], "image_scale": 1.0, "epoch": 3, "mean_iou": 0.5,
    }  # fmt: skip
    return [json.dumps(facts | {"architecture": "enet"}).encode(), json.dumps(facts).encode()]


def _onnx(path: Path) -> None:
    try:
        model = read_onnx(path, (8, 8))
    except SpecError:
        model = read_onnx(path)
    if max(map(np.prod, model.input_shapes)) < 1 << 16:
        model.random_inputs()
    assert model.arithmetic
    assert model.batch != 0
    cost_of_onnx(model)


def _models() -> list[bytes]:
    from onnx import TensorProto, helper, numpy_helper

    def model(nodes: list[object], weights: dict[str, np.ndarray], **more: object) -> bytes:
        image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, "h", "w"])
        out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
        graph = helper.make_graph(nodes, "g", [image], [out], tensors)
        opset = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        return bytes(helper.make_model(graph, opset_imports=opset, **more).SerializeToString())

    node = helper.make_node
    weight = np.ones((4, 3, 3, 3), np.float32)
    body = helper.make_function(
        "own", "twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    truth = helper.make_tensor_value_info("t", TensorProto.FLOAT, None)
    then = helper.make_graph([node("Relu", ["x"], ["t"])], "then", [], [truth])
    return [
        model([node("Conv", ["x", "w"], ["c"], pads=[1] * 4), node("Relu", ["c"], ["y"])],
              {"w": weight}),
        model([node("twice", ["x"], ["y"], domain="own")], {}, functions=[body]),
        model([node("If", ["k"], ["y"], then_branch=then, else_branch=then)],
              {"k": np.array(True)}),
        model([node("Shape", ["x"], ["s"]), node("Reshape", ["x", "s"], ["y"])], {}),
    ]  # fmt: skip


def _pictures() -> list[bytes]:
    ramp = np.arange(12 * 16 * 3, dtype=np.uint8).reshape(12, 16, 3)
    made = []
    for form in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"):
        Image.fromarray(ramp).save(buffer := io.BytesIO(), form)
        made.append(buffer.getvalue())
    return made


def _inputs() -> list[bytes]:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(one := io.BytesIO(), values)
    np.savez(several := io.BytesIO(), a=values, b=values)
    np.savez_compressed(packed := io.BytesIO(), a=values)
    return [one.getvalue(), several.getvalue(), packed.getvalue()]


def _module(path: Path) -> None:
    read_module(path, (8, 8))


def _modules() -> list[bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch would rather have it exported
        traced = torch.jit.trace(torch.nn.Conv2d(3, 2, 3), torch.zeros(1, 3, 8, 8))
        torch.jit.save(traced, buffer := io.BytesIO())
    return [buffer.getvalue()]


@contextmanager
def _a_file(name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / name


def _tables() -> list[bytes]:
    with _a_file("t.db") as path:
        entries = path.with_name("entries.csv")
        entries.write_bytes(_csv()[0])
        import_file(entries, path)
        return [path.read_bytes()]


def _table(path: Path) -> None:
    with LatencyTable.open(path) as table:
        check(table)
        list(table)


def _ir_files() -> list[bytes]:
    import openvino

    with _a_file("m.xml") as path:
        openvino.save_model(openvino.convert_model(io.BytesIO(_models()[3])), path)
        return [path.read_bytes()]


def _ir(path: Path) -> None:
    path.with_suffix(".bin").write_bytes(bytes(1024))  # its weights
    try:
        read_ir(path, (8, 8))
    except SpecError:
        read_ir(path)


def _videos() -> list[bytes]:
    made = []
    for suffix, codec in ((".mkv", "libx264"), (".mp4", "mpeg4"), (".avi", "mpeg4")):
        with _a_file(f"v{suffix}") as path:
            with av.open(str(path), "w") as container:
                stream = container.add_stream(codec, rate=10, width=32, height=16)
                stream.pix_fmt = "yuv420p"
                for shade in (0, 90, 200):
                    image = np.full((16, 32, 3), shade, np.uint8)
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
                container.mux(stream.encode(None))
            made.append(path.read_bytes())
    return made


def _video(path: Path) -> None:
    with VideoReader(path) as video:
        for _ in islice(video.frames(), 20):
            pass


def _op_spec(path: Path) -> None:
    spec = OpSpec.parse(path.read_bytes().decode("utf-8", "replace"))
    assert OpSpec.parse(spec.key) == spec


#: Name -> the reader; those of TOML share one file reader and differ in what may stand in it.
READERS: dict[str, Reader] = {
    "csv": Reader(".csv", _entries, _csv),
    "parquet": Reader(".parquet", _entries, _parquet),
    "npy": Reader(".npy", read_fasterseg_npy, _npy),
    "plan": Reader(".toml", _plan, _plans),
    "settings": Reader(".toml", load_train_settings, lambda: _shipped("trainings/*.toml")),
    "classes": Reader(".toml", open_class_file, _classes),
    "architecture": Reader(".json", _architecture, lambda: _shipped("architectures/*.json")),
    "description": Reader(".json", _description, _descriptions),
    "published": Reader(".pt", read_published, lambda: _torch_files(_state())),
    "checkpoint": Reader(
        ".pt", lambda path: load_checkpoint(path, "training", _CHECKPOINT_TYPES), _checkpoint_files
    ),
    "onnx": Reader(".onnx", _onnx, _models),
    "picture": Reader(".png", read_image, _pictures),
    "inputs": Reader(".npz", read_inputs, _inputs),
    "module": Reader(".pt", _module, _modules),
    "ir": Reader(".xml", _ir, _ir_files),
    "table": Reader(".db", _table, _tables),
    "video": Reader(".mkv", _video, _videos),
    "op_spec": Reader(".txt", _op_spec, lambda: [b"refine 256,128->128 at 8x16,16x32 a=2"]),
}


@cache
def seeds_of(name: str) -> tuple[bytes, ...]:
    """Whole files of that reader's kind."""
    return tuple(READERS[name].seeds())
