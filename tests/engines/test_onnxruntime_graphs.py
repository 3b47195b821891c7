"""CUDA graphs of ONNX Runtime: what cannot be captured runs without, and says so.

Only opening a session on a GPU is replaced here: sessions run on the CPU, and refuse to be captured
where ONNX Runtime does, when a session is made or in its first run.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper

from latlut.engines import onnxruntime as ort
from latlut.engines.cuda.graphs import ENQUEUED, REPLAYED
from latlut.engines.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeSession
from latlut.errors import EngineError
from latlut.operators.onnx_files import read_onnx
from latlut.operators.onnx_weights import runtime_session
from latlut.operators.workloads import Workload
from latlut.opspec import OpSpec

CONV = Workload.from_spec(OpSpec("conv", (4, 8, 8), 4))


class _NotInARun:
    """A session that cannot be captured, which shows when it runs."""

    def __init__(self, session: object) -> None:
        self._session = session

    def __getattr__(self, name: str) -> object:
        return getattr(self._session, name)

    def run_with_iobinding(self, *_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")


def _engine(monkeypatch: pytest.MonkeyPatch, choice: str, refuses: str) -> OnnxRuntimeEngine:
    opened: list[bool] = []

    def open_session(self: OnnxRuntimeSession, *, is_captured: bool) -> object:
        self._place = ("cpu", 0)
        opened.append(is_captured)
        if is_captured and refuses == "opening":
            raise RuntimeError("this session cannot use the CUDA Graph feature")
        folder = self.workload.weights_folder
        session = runtime_session(
            self._graph, folder, self._session_options(), ["CPUExecutionProvider"]
        )
        return _NotInARun(session) if is_captured and refuses == "running" else session

    monkeypatch.setattr(OnnxRuntimeSession, "_open_on_gpu", open_session)
    monkeypatch.setattr(ort, "_torch_has_cuda", lambda: False)
    engine = OnnxRuntimeEngine()
    engine.device = replace(engine.device, name="cuda:0")
    engine.options["cuda_graph"] = choice
    engine.opened = opened  # type: ignore[attr-defined]
    return engine


@pytest.mark.parametrize(
    ("choice", "opened", "launch"),
    [("off", [False], ENQUEUED), ("on", [True], REPLAYED), ("auto", [True], REPLAYED)],
)
def test_what_is_captured_is_said(
    monkeypatch: pytest.MonkeyPatch, choice: str, opened: list[bool], launch: str
) -> None:
    engine = _engine(monkeypatch, choice, "nowhere")
    with engine.load(CONV) as session:
        assert engine.check_parity(session) < 1e-5
        assert (engine.opened, session.launch) == (opened, launch)  # type: ignore[attr-defined]


@pytest.mark.parametrize("refuses", ["opening", "running"])
def test_what_cannot_be_captured_runs_without_and_says_why(
    monkeypatch: pytest.MonkeyPatch, refuses: str
) -> None:
    engine = _engine(monkeypatch, "auto", refuses)
    with engine.load(CONV) as session:
        assert engine.check_parity(session) < 1e-5
        assert engine.opened == [True, False]  # type: ignore[attr-defined]
        assert session.launch is not None
        assert session.launch.startswith(f"{ENQUEUED} (not captured: ")
        assert "captur" in session.launch.removeprefix(ENQUEUED) or "CUDA Graph" in session.launch
    with pytest.raises(EngineError, match=r"(?s)CUDA graph: .*cuda_graph=auto"):
        _engine(monkeypatch, "on", refuses).load(CONV)


def test_outputs_of_open_sizes_are_not_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph would go on writing where the sizes of its capture were."""
    nodes = [helper.make_node("NonZero", ["x"], ["places"])]
    graph = helper.make_graph(
        nodes,
        "open",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("places", TensorProto.INT64, [4, None])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    engine = _engine(monkeypatch, "auto", "nowhere")
    with engine.load(read_onnx(model.SerializeToString())) as session:
        assert "depend on its inputs" in (session.launch or "")
        image = np.zeros((1, 3, 4, 4), np.float32)
        image[0, 1, 2, 3] = 1
        session.set_inputs([image])
        session.run()
        np.testing.assert_array_equal(session.outputs()[0].ravel(), [0, 1, 2, 3])
