"""OpenVINO's own model files: which inputs they have, who runs them, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx_models import adder, segmenter

from latlut.cli import main
from latlut.engines import engine_class
from latlut.errors import EngineError, ImportFileError, SpecError
from latlut.measure.bench import BenchSettings, bench_workload
from latlut.measure.timing import TimingSettings
from latlut.operators.ir_files import read_ir

openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")


def saved(content: bytes, folder: Path) -> Path:
    source, path = folder / "m.onnx", folder / "m.xml"
    onnx.save(onnx.load_from_string(content), source)
    openvino.save_model(openvino.convert_model(source), path, compress_to_fp16=False)
    return path


@pytest.mark.parametrize(
    ("shape", "asked", "found"),
    [
        ((1, 3, 16, 24), {}, (1, 3, 16, 24)),
        ((None, 3, 16, 24), {}, (1, 3, 16, 24)),
        ((None, 3, None, None), {"input_size": (8, 12), "batch": 2}, (2, 3, 8, 12)),
        ((None, 3, None, None), {"shapes": {"": (4, 3, 6, 6)}}, (4, 3, 6, 6)),
    ],
)
def test_openvino_runs_its_own_files(tmp_path: Path, shape, asked, found) -> None:
    workload = read_ir(saved(segmenter(shape), tmp_path), **asked)
    assert (workload.input_names, workload.input_shapes) == (("image",), (found,))
    assert (workload.batch, workload.image_size) == (found[0], found[2:])
    with engine_class("openvino")().load(workload) as session:
        session.run()
        (output,) = session.outputs()
    assert output.shape == (found[0], 4, *found[2:])


def test_its_result_says_that_nothing_was_compared(tmp_path: Path) -> None:
    timing = TimingSettings(min_samples=1, max_samples=2, min_time_s=0, time_cap_s=0.001)
    workload = read_ir(saved(segmenter(), tmp_path))
    found = bench_workload(engine_class("openvino")(), workload, BenchSettings(2, timing))
    assert found.difference is None and found.latency_ms > 0


@pytest.mark.parametrize("name", ["onnxruntime", "pytorch"])
def test_no_other_engine_runs_them(tmp_path: Path, name: str) -> None:
    workload = read_ir(saved(segmenter(), tmp_path))
    with pytest.raises(EngineError, match=r"m.xml is a model of OpenVINO.*--engine openvino"):
        engine_class(name)().load(workload)


def test_inputs_of_other_types_and_given_ones(tmp_path: Path) -> None:
    path = saved(adder((1, 2), (1, 2)), tmp_path)
    workload = read_ir(path)
    assert len(workload.names) > 1
    arrays = {
        name: np.ones(shape, dtype)
        for name, shape, dtype in zip(
            workload.names, workload.input_shapes, workload.input_types, strict=True
        )
    }
    given = read_ir(path, data=arrays).random_inputs()
    assert all((array == 1).all() for array in given)
    with pytest.raises(SpecError, match="give all inputs or none"):
        read_ir(path, data=dict(list(arrays.items())[:1]))


def test_open_sides_and_wrong_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="leaves its size open: name it"):
        read_ir(saved(segmenter((1, 3, None, None)), tmp_path))
    broken = tmp_path / "b.xml"
    broken.write_text("<?xml version='1.0'?><net></net>")
    for path in (broken, tmp_path / "absent.xml"):
        with pytest.raises(ImportFileError, match=path.name):
            read_ir(path)


def test_a_layer_that_is_seen_to_be_huge_is_refused(tmp_path: Path) -> None:
    image = openvino.opset13.parameter([1, 1], np.float32, name="x")
    wide = openvino.opset13.broadcast(image, np.array([1 << 16, 1 << 15], np.int64))
    wide.set_friendly_name("wide")
    whole = openvino.opset13.reduce_sum(wide, np.array([0, 1], np.int64))
    openvino.save_model(openvino.Model([whole], [image]), tmp_path / "w.xml")
    with pytest.raises(SpecError, match=r"w.xml: the output of wide is too large to be run"):
        read_ir(tmp_path / "w.xml")


def test_bench_takes_openvino_by_itself(tmp_path: Path) -> None:
    path = str(saved(segmenter(), tmp_path))
    found = CliRunner().invoke(main, ["bench", path, "--cpu", "--passes", "1"])
    assert found.exit_code == 0, found.output
    assert "OpenVINO" in found.output and "was not compared" in found.output
    refused = CliRunner().invoke(main, ["bench", path, "--cpu", "--argmax"])
    assert refused.exit_code == 2 and "is measured as it is" in refused.output
