"""Exported networks: each file is read back here by its own runtime, without latlut."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from latlut.cli import main
from latlut.engines import engine_class
from latlut.errors import LatlutError, SpecError, UnknownNameError
from latlut.files.writing import WriteError, written_whole
from latlut.operators.onnx_files import read_onnx
from latlut.search.data.classes import Classes
from latlut.search.deploy.export import ExportError, ExportSettings, export
from latlut.search.deploy.export_formats import FORMATS, OPSETS
from latlut.search.networks.deployable import Deployable, from_architecture, from_training
from latlut.search.networks.model_files import ModelFacts, save_model
from latlut.search.networks.network import trainable
from latlut.spaces import Architecture, FasterSegSpace

SIZE = (64, 96)

#: PyTorch says so of TorchScript as a whole; people have runtimes that read nothing else.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def architecture() -> Architecture:
    return FasterSegSpace(layers=4, widths=(4,), stem_head_widths=(4,)).sample(3)


@pytest.fixture(scope="module")
def network(architecture: Architecture) -> Deployable:
    return from_architecture(architecture, "small", seed=2)


def path_for(folder: Path, file_format: str) -> Path:
    return folder / f"network{FORMATS[file_format].endings[0]}"


def run_file(path: Path, image: np.ndarray) -> np.ndarray:
    """The output of a file, by the runtime that its ending names."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return session.run(None, {"in0": image})[0]
    if path.suffix == ".xml":
        openvino = pytest.importorskip("openvino")
        config = {"INFERENCE_PRECISION_HINT": "f32"}
        return openvino.Core().compile_model(path, "CPU", config)(image)[0]
    with torch.inference_mode():
        if path.suffix == ".pt":
            return torch.jit.load(path)(torch.from_numpy(image)).numpy()
        return torch.export.load(path).module()(torch.from_numpy(image)).numpy()


def facts_in(path: Path) -> dict:
    if path.suffix == ".onnx":
        (item,) = onnx.load(path).metadata_props
        return json.loads(item.value)
    if path.suffix == ".xml":
        model = pytest.importorskip("openvino").Core().read_model(path)
        return json.loads(model.get_rt_info(["latlut"]).astype(str))
    files: dict = {"latlut": ""}
    if path.suffix == ".pt":
        torch.jit.load(path, _extra_files=files)
    else:
        torch.export.load(path, extra_files=files)
    return json.loads(files["latlut"])


def image_of(batch: int = 1, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(7).standard_normal((batch, 3, *size), dtype=np.float32)


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("has_upsample", [True, False])
@pytest.mark.parametrize("has_argmax", [False, True])
def test_a_file_computes_what_the_network_does(
    network: Deployable, tmp_path: Path, file_format: str, has_upsample: bool, has_argmax: bool
) -> None:
    path = path_for(tmp_path, file_format)
    settings = ExportSettings(SIZE, has_upsample=has_upsample, has_argmax=has_argmax)
    written = export(network, path, file_format, settings)
    image = image_of()
    with torch.inference_mode():
        logits = network.network(torch.from_numpy(image))
    found = run_file(path, image)
    sides = SIZE if has_upsample else (SIZE[0] // 8, SIZE[1] // 8)
    assert found.shape == written.output_shape == (1, *(() if has_argmax else (19,)), *sides)
    if has_argmax and has_upsample:
        assert np.mean(found == logits.argmax(1).numpy()) > 0.999
    elif has_upsample:
        assert np.allclose(found, logits.numpy(), atol=1e-3 * float(logits.abs().max()))
    comparison = written.comparison
    assert (comparison.equal_pixels is not None) == has_argmax
    assert (comparison.max_relative_difference is not None) != has_argmax
    assert written.size_bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    facts = facts_in(path)
    assert facts["output"]["what"] == ("best class" if has_argmax else "logits")
    assert facts["input"]["mean"] == [0.485, 0.456, 0.406]
    assert facts["weights"] == "architecture"


@pytest.mark.parametrize("file_format", FORMATS)
def test_an_open_batch_takes_any_number_of_images(
    network: Deployable, tmp_path: Path, file_format: str
) -> None:
    path = path_for(tmp_path, file_format)
    settings = ExportSettings(SIZE, is_batch_dynamic=True)
    written = export(network, path, file_format, settings)
    assert written.comparison.batches == (1, 2)
    images = image_of(3)
    together = run_file(path, images)
    alone = np.concatenate([run_file(path, image[None]) for image in images])
    assert together.shape == (3, 19, *SIZE)
    assert np.allclose(together, alone, atol=1e-3 * np.abs(alone).max())


@pytest.mark.parametrize("opset", [OPSETS[0], 13, OPSETS[1]])
def test_the_opset_is_the_one_asked_for(network: Deployable, tmp_path: Path, opset: int) -> None:
    path = tmp_path / "network.onnx"
    export(network, path, "onnx", ExportSettings(SIZE, opset=opset))
    assert [item.version for item in onnx.load(path).opset_import] == [opset]


def test_a_trained_network_keeps_its_weights(architecture: Architecture, tmp_path: Path) -> None:
    trained = trainable(architecture, 3, seed=5)
    with torch.no_grad():  # statistics that no fresh network has
        for part in trained.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.uniform_(-0.5, 0.5)
                part.running_var.uniform_(0.5, 2.0)
    names = ("road", "car", "sky")
    classes = Classes(names, ((0, 0, 0), (1, 1, 1), (2, 2, 2)))
    facts = ModelFacts(trained.architecture, classes, "some data", SIZE, image_scale=0.5)
    save_model(tmp_path / "run", trained, facts)
    deployable = from_training(tmp_path / "run")
    assert (deployable.input_size, deployable.num_classes) == (SIZE, 3)
    path = tmp_path / "trained.onnx"
    export(deployable, path, "onnx", ExportSettings(SIZE))
    image = image_of()
    with torch.inference_mode():
        expected = trained.eval()(torch.from_numpy(image)).numpy()
    assert np.allclose(run_file(path, image), expected, atol=1e-4 * np.abs(expected).max())
    assert facts_in(path)["classes"] == list(names)
    assert facts_in(path)["input"]["image_scale"] == 0.5


class Fickle(nn.Module):
    """Takes another turn for images whose mean is not 0: a trace of a black image misses it."""

    def forward(self, image: Tensor) -> Tensor:
        logits = torch.cat([image, image.mean(dim=1, keepdim=True)], dim=1)
        return -logits if float(image.abs().mean()) > 0 else logits


class Deep(nn.Module):
    """A stack that has no form without enlarging its logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        return self.conv(image)


@pytest.mark.parametrize("file_format", ["onnx", "openvino", "torchscript"])
@pytest.mark.parametrize("has_argmax", [False, True])
def test_a_file_that_differs_is_refused_and_the_one_before_stays(
    tmp_path: Path, file_format: str, has_argmax: bool
) -> None:
    path = path_for(tmp_path, file_format)
    path.write_text("the one before")
    fickle = Deployable("fickle", "baseline", Fickle().eval(), 4)
    settings = ExportSettings(SIZE, has_argmax=has_argmax)
    with pytest.raises(ExportError, match=r"differs from PyTorch.*the file was removed"):
        export(fickle, path, file_format, settings)
    assert path.read_text() == "the one before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_an_exporter_rejects_is_said(tmp_path: Path) -> None:
    fickle = Deployable("fickle", "baseline", Fickle().eval(), 4)
    with pytest.raises(ExportError, match="fickle cannot be written as exported-program"):
        export(fickle, tmp_path / "fickle.pt2", "exported-program", ExportSettings(SIZE))
    assert list(tmp_path.iterdir()) == []


def test_a_network_without_such_an_output_is_refused(tmp_path: Path) -> None:
    deep = Deployable("deep", "baseline", Deep().eval(), 4)
    with pytest.raises(LatlutError, match="no form without upsampling"):
        export(deep, tmp_path / "x.onnx", "onnx", ExportSettings(SIZE, has_upsample=False))
    assert export(deep, tmp_path / "x.onnx", "onnx", ExportSettings(SIZE)).path.exists()


def test_what_cannot_be_asked_for(network: Deployable, tmp_path: Path) -> None:
    settings = ExportSettings(SIZE)
    with pytest.raises(UnknownNameError, match="did you mean 'onnx'"):
        export(network, tmp_path / "x.onnx", "onx", settings)
    with pytest.raises(ExportError, match=r"ends in \.onnx, such as x\.onnx"):
        export(network, tmp_path / "x.pt", "onnx", settings)
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ExportError, match="name a file"):
        export(network, tmp_path / "folder.onnx", "onnx", settings)
    for wrong in ({"opset": 9}, {"opset": 21}, {"batch": 0}):
        with pytest.raises(SpecError):
            ExportSettings(SIZE, **wrong)
    with pytest.raises(SpecError, match="at least 32"):
        ExportSettings((16, 96))


@contextmanager
def largest_file(limit_bytes: int) -> Iterator[None]:
    """No file can become larger: what a full disk does, to this process alone."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_full_disk_leaves_the_file_before(
    network: Deployable, tmp_path: Path, file_format: str
) -> None:
    path = path_for(tmp_path, file_format)
    path.write_text("the one before")
    with largest_file(2000), pytest.raises(LatlutError, match="cannot"):
        export(network, path, file_format, ExportSettings(SIZE))
    assert path.read_text() == "the one before"
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_moved_together_and_the_named_one_last(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "model.xml"
    with written_whole(path) as temporary:
        temporary.write_text("new")
        temporary.with_suffix(".bin").write_text("weights")
        assert not path.exists()
    assert path.read_text() == "new"
    assert path.with_suffix(".bin").read_text() == "weights"
    with pytest.raises(ZeroDivisionError), written_whole(path) as temporary:
        temporary.write_text("newer")
        raise ZeroDivisionError
    assert path.read_text() == "new"
    assert sorted(item.name for item in path.parent.iterdir()) == ["model.bin", "model.xml"]
    with pytest.raises(WriteError, match="cannot write"), written_whole(path / "below.onnx"):
        pass


class TestCommand:
    @pytest.fixture
    def small(self, architecture: Architecture, tmp_path: Path) -> str:
        path = tmp_path / "small.json"
        architecture.save(path)
        return str(path)

    def call(self, *words: str):
        return CliRunner().invoke(main, ["export", *words])

    def test_a_file_that_bench_can_measure(self, small: str, tmp_path: Path) -> None:
        out = tmp_path / "small.onnx"
        words = (small, "-o", str(out), "--input", "64x96", "--dynamic-batch", "--argmax", "--json")
        result = self.call(*words)
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert found["equal_pixels"] > 0.999
        assert found["output_shape"] == [1, 64, 96]
        assert "random weights" in result.stderr
        workload = read_onnx(out, batch=2)
        assert workload.input_shapes == ((2, 3, 64, 96),)
        assert "ArgMax" in workload.op_types

    def test_what_people_see(self, small: str, tmp_path: Path) -> None:
        out = tmp_path / "small.xml"
        pytest.importorskip("openvino")
        result = self.call(small, "-o", str(out), "--format", "openvino", "--input", "64x96")
        assert result.exit_code == 0, result.output
        assert "1 x 3 x 64 x 96 to 1 x 19 x 64 x 96" in result.stdout
        assert "small.bin" in result.stdout
        assert "loaded again" in result.stdout

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("nothing", "-o", "x.onnx"), "no network, file or folder 'nothing'"),
            (("SMALL", "-o", "x.pt"), "ends in .onnx"),
            (("SMALL", "-o", "x.onnx", "--precision", "fp16"), "is for --format tensorrt"),
            (("SMALL", "-o", "x.onnx", "--format", "tensorrt"), "ends in .plan"),
            (("SMALL", "-o", "x.plan", "--format", "tensorrt", "--dynamic-batch"), "fixed batch"),
            (("SMALL", "-o", "x.onnx", "--opset", "30"), "11 to 20"),
        ],
    )
    def test_refusals(
        self,
        small: str,
        words: tuple[str, ...],
        message: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        result = self.call(*(small if word == "SMALL" else word for word in words))
        assert result.exit_code == 2
        assert message in result.stderr
        assert [str(path) for path in tmp_path.iterdir()] == [small]

    @pytest.mark.parametrize("engine", ["tensorrt", "tensorrt-rtx"])
    def test_a_plan_needs_the_gpu_and_says_so(
        self, small: str, tmp_path: Path, engine: str
    ) -> None:
        if engine_class(engine).availability().is_available:
            pytest.skip(f"{engine} works here")
        out = tmp_path / "small.plan"
        result = self.call(small, "-o", str(out), "--format", "tensorrt", "--engine", engine)
        assert result.exit_code == 2
        assert engine_class(engine).availability().reason in result.stderr
        assert not out.exists()

    def test_the_folder_of_a_search_names_its_networks(
        self, architecture: Architecture, tmp_path: Path
    ) -> None:
        folder = tmp_path / "search"
        folder.mkdir()
        architecture.save(folder / "student.json")
        result = self.call(str(folder), "-o", str(tmp_path / "x.onnx"))
        assert result.exit_code == 2
        assert "student.json" in result.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("engine_name", ["tensorrt", "tensorrt-rtx"])
def test_a_plan_agrees_with_pytorch(network: Deployable, tmp_path: Path, engine_name: str) -> None:
    from latlut.engines.tensorrt.plan_file import write_plan

    found = engine_class(engine_name).availability()
    if not found.is_available:
        pytest.skip(found.reason)
    engine = engine_class(engine_name)(device="cuda:0")
    path = tmp_path / "network.plan"
    difference, shape = write_plan(engine, network.module(SIZE), (1, 3, *SIZE), path)  # type: ignore[arg-type]
    assert difference < 1e-3
    assert shape == (1, 19, *SIZE)
    assert path.stat().st_size > 1000
