"""What an identity says of CUDA graphs: tables from before ``auto`` was the default mean off."""

from __future__ import annotations

import pytest

from latlut.engines import engine_class, engine_names, selftest
from latlut.engines.base import Availability, Device, Engine
from latlut.engines.choosing import DeviceChoice
from latlut.engines.cuda.graphs import CUDA_GRAPH
from latlut.engines.tensorrt.versions import Release
from latlut.errors import EngineError
from latlut.measure.sweep_settings import identity_of
from latlut.table.identity import Identity


class OnBoth(Engine):
    """An engine with graphs, on a CPU and on a GPU, that opens nothing."""

    name, title = "on-both", "On both"
    option_choices = {"cuda_graph": CUDA_GRAPH}

    @classmethod
    def availability(cls) -> Availability:
        return Availability(True, "1.0")

    def _find_device(self, name: str) -> Device:
        return Device(name, "a device", "", "" if name == "cpu" else "GPU-1")


@pytest.mark.parametrize(
    ("device", "options", "used", "text"),
    [
        ("cuda:0", {}, "auto", "cuda_graph=auto"),
        ("GPU-1", {}, "auto", "cuda_graph=auto"),
        ("cuda:0", {"cuda_graph": "auto"}, "auto", "cuda_graph=auto"),
        ("cuda:0", {"cuda_graph": "on"}, "on", "cuda_graph=on"),
        ("cuda:0", {"cuda_graph": "off"}, "off", ""),
        ("cpu", {}, "off", ""),
    ],
)
def test_the_default_on_a_gpu_is_auto_and_the_identity_says_so(
    device: str, options: dict[str, str], used: str, text: str
) -> None:
    engine = OnBoth(device=device, options=options)
    assert engine.options == {"cuda_graph": used}
    assert engine.options_text == text
    assert identity_of(engine, "h200", statistic="p10").engine_options == text


@pytest.mark.parametrize(
    ("stored", "used"), [("", "off"), ("cuda_graph=on", "on"), ("cuda_graph=auto", "auto")]
)
@pytest.mark.parametrize("engine", ["tensorrt", "tensorrt-rtx", "onnxruntime", "pytorch"])
def test_a_table_is_continued_with_what_its_identity_means(
    engine: str, stored: str, used: str
) -> None:
    own = Identity("h200", "NVIDIA H200", engine, "1.0", engine_options=stored)
    options = dict(DeviceChoice.of_identity(own).engine_options)
    assert options == {"cuda_graph": used}
    engine_on_gpu = OnBoth(device="cuda:0", options=options)
    assert engine_on_gpu.options_text == stored


def test_other_options_and_tables_of_cpus_are_as_they_were() -> None:
    cpu = Identity("cpu", "a CPU", "pytorch", "1.0", engine_options="memory_format=channels_last")
    assert DeviceChoice.of_identity(cpu).engine_options == (("memory_format", "channels_last"),)
    foreign = Identity("1080ti", "a GPU", "of-somebody-else", "1.0")
    assert DeviceChoice.of_identity(foreign).engine_options == ()


def test_every_engine_that_has_graphs_has_the_same_option() -> None:
    own = [name for name in engine_names() if engine_class(name).__module__.startswith("latlut.")]
    found = {
        name: engine_class(name).option_choices["cuda_graph"]
        for name in own
        if "cuda_graph" in engine_class(name).option_choices
    }
    assert set(found) == {*own} - {"openvino"}
    assert set(map(id, found.values())) == {id(CUDA_GRAPH)}


@pytest.mark.parametrize("choice", ["on", "auto"])
@pytest.mark.parametrize("name", ["pytorch", "onnxruntime"])
def test_on_a_cpu_nothing_is_captured(name: str, choice: str) -> None:
    assert engine_class(name)().options["cuda_graph"] == "off"
    with pytest.raises(EngineError, match=f"cuda_graph={choice} is for GPUs"):
        engine_class(name)(options={"cuda_graph": choice})


def test_a_gpu_that_an_engine_has_no_kernels_for_is_no_defect_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As TensorRT-RTX on a data-centre GPU of the Hopper generation."""
    from types import SimpleNamespace

    from latlut.engines.tensorrt.build import check_capability

    module = SimpleNamespace(
        __name__="tensorrt_rtx",
        __version__="1.7.1",
        ComputeCapability=SimpleNamespace(__members__={"SM75": 1, "SM89": 2, "SM120": 3}),
    )

    class NotHere(OnBoth):
        def _find_device(self, name: str) -> Device:
            if name == "old":
                Release("tensorrt_rtx", "1.7.1").check_gpu("a GPU of Pascal", (6, 1))
            check_capability(module, (9, 0))  # type: ignore[arg-type]
            return Device(name, "NVIDIA H100")

    for device, reason in (("cuda:0", "not for 9.0"), ("old", "needs compute capability 7.5")):
        found = selftest._try(NotHere, device)
        assert not found.works
        assert reason in found.detail
        assert found.remedy
        assert "report" not in found.remedy
