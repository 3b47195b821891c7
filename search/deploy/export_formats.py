"""The formats of exported networks: how each is written, and how it is run again.

``write`` takes the module, the file's path, what is asked for and the facts that the file is to
carry, as JSON. ``load`` gives a function from an image (B, 3, H, W) to the output, by the runtime
that the file is for, on the CPU.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from latlut.errors import LatlutError
from latlut.operators.onnx_export import export_onnx

#: Opsets of ONNX that PyTorch's exporter writes resizing with aligned corners in.
OPSETS = (11, 20)
#: Under this name the facts are in each file.
FACTS = "latlut"
#: Most images per inference of an exported program with an open batch.
_MAX_BATCH = 4096

Run = Callable[[np.ndarray], np.ndarray]


class Wanted(Protocol):
    """What the formats need to know of the settings."""

    @property
    def input_shape(self) -> tuple[int, int, int, int]: ...
    @property
    def is_batch_dynamic(self) -> bool: ...
    @property
    def opset(self) -> int: ...


@dataclass(frozen=True)
class Format:
    """A format: the endings of its files, the usual one first, and what writes and runs them."""

    endings: tuple[str, ...]
    write: Callable[[nn.Module, Path, Wanted, str], None]
    load: Callable[[Path], Run]


def _onnx_model(module: nn.Module, wanted: Wanted) -> bytes:
    image = np.zeros(wanted.input_shape, dtype=np.float32)
    return export_onnx(module, [image], wanted.opset, wanted.is_batch_dynamic)


def _write_onnx(module: nn.Module, path: Path, wanted: Wanted, facts: str) -> None:
    import onnx

    model = onnx.load_model_from_string(_onnx_model(module, wanted))
    onnx.helper.set_model_props(model, {FACTS: facts})
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def _load_onnx(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: np.asarray(session.run(None, {name: image})[0])


def _openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise LatlutError(
            f"OpenVINO is needed for its own format and cannot be imported: {error}\n"
            "pip install 'latlut[openvino]'  or  pip install openvino"
        ) from error
    return openvino


def _write_openvino(module: nn.Module, path: Path, wanted: Wanted, facts: str) -> None:
    openvino = _openvino()
    # By way of ONNX: the graph is the one that the engine is benchmarked with.
    with tempfile.TemporaryDirectory(prefix="latlut-openvino-") as folder:
        graph = Path(folder) / "network.onnx"
        graph.write_bytes(_onnx_model(module, wanted))
        model = openvino.convert_model(graph)
        model.set_rt_info(facts, [FACTS])
        # Half-precision weights, its default, would be another network than the trained one.
        openvino.save_model(model, path, compress_to_fp16=False)


def _load_openvino(path: Path) -> Run:
    core = _openvino().Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = core.compile_model(core.read_model(path), "CPU", settings)
    return lambda image: np.array(compiled(image)[0])


def _write_torchscript(module: nn.Module, path: Path, wanted: Wanted, facts: str) -> None:
    traced = torch.jit.trace(module, torch.zeros(wanted.input_shape), check_trace=False)
    buffer = io.BytesIO()  # given a path, torch aborts the whole process where the disk is full
    torch.jit.save(traced, buffer, _extra_files={FACTS: facts})
    path.write_bytes(buffer.getbuffer())


def _load_torchscript(path: Path) -> Run:
    return _torch_run(torch.jit.load(path, map_location="cpu"))


def _write_program(module: nn.Module, path: Path, wanted: Wanted, facts: str) -> None:
    batch, *rest = wanted.input_shape
    open_sides: Any = None
    if wanted.is_batch_dynamic:
        # An example of one image would be taken for a batch that is always one.
        batch = max(batch, 2)
        open_sides = ({0: torch.export.Dim("batch", min=1, max=_MAX_BATCH)},)
    with torch.no_grad():
        program = torch.export.export(
            module, (torch.zeros(batch, *rest),), dynamic_shapes=open_sides
        )
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={FACTS: facts})
    path.write_bytes(buffer.getbuffer())


def _load_program(path: Path) -> Run:
    return _torch_run(torch.export.load(path).module())


def _torch_run(module: Callable[[torch.Tensor], torch.Tensor]) -> Run:
    def run(image: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(image)).numpy()

    return run


FORMATS: dict[str, Format] = {
    "onnx": Format((".onnx",), _write_onnx, _load_onnx),
    "openvino": Format((".xml",), _write_openvino, _load_openvino),
    "torchscript": Format((".pt", ".ts"), _write_torchscript, _load_torchscript),
    "exported-program": Format((".pt2",), _write_program, _load_program),
}
