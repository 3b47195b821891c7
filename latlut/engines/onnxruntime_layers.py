"""ONNX Runtime's per-layer view: its own profile, traced back to the nodes of the graph.

ONNX Runtime rewrites the graph: activations go into convolutions, convolutions into its blocked
layout, reorders in between. The rewritten graph is read back, and each of its nodes is found to
compute those original nodes that lie between its output and its inputs. That needs no knowledge
of the rewrites and no parsing of names; only the blocked layout renames tensors, and the tensors
keep their origin in the name of the node that makes them.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from latlut.engines.base import LayerTime
from latlut.errors import EngineError
from latlut.operators.onnx_weights import runtime_session

_WARMUP_RUNS = 3
_KERNEL_SUFFIX = "_kernel_time"
_WITH_BODY = ("If", "Loop", "Scan", "SequenceMap")
#: What the layout transformer appends to a tensor's name to name the node that makes it.
_BLOCKED_SUFFIX = "_nchwc"
#: Nodes whose only work is to hand over their input, perhaps in another layout.
_HAND_OVER = ("ReorderInput", "ReorderOutput", "Identity", "MemcpyToHost", "MemcpyFromHost")
#: Nodes that compute nothing, wherever they were put.
_MOVES = (*_HAND_OVER, "Transpose", "Reshape")


def graph_layers(
    graph: bytes,
    options: Any,
    arrays: Sequence[np.ndarray],
    runs: int,
    weights_folder: Path | None = None,
) -> tuple[LayerTime, ...]:
    """The nodes that ONNX Runtime executes for ``graph`` on the CPU, in order.

    Args:
        graph: the serialised ONNX model.
        options: ``onnxruntime.SessionOptions`` as for measuring; changed here, so pass fresh ones.
        arrays: the inputs, in order.
        runs: profiled runs, at least 1.
        weights_folder: where weights lie that are not in the model.

    A loop or a branch is one layer: its time is that of its body.

    Raises:
        EngineError: the profile does not hold every run.
    """
    import onnx

    named = named_nodes(onnx.load_from_string(graph))
    with tempfile.TemporaryDirectory(prefix="latlut-layers-") as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        session = runtime_session(
            named.SerializeToString(), weights_folder, options, ["CPUExecutionProvider"]
        )
        feeds = {meta.name: a for meta, a in zip(session.get_inputs(), arrays, strict=True)}
        for _ in range(_WARMUP_RUNS + runs):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        rewritten = onnx.load(options.optimized_model_filepath).graph
    times_us: dict[str, list[float]] = defaultdict(list)
    kinds: dict[str, str] = {}
    for event in _outer_events(events):
        name = event["name"].removesuffix(_KERNEL_SUFFIX)
        times_us[name].append(float(event["dur"]))
        kinds[name] = str(event["args"]["op_name"])
    if any(len(found) != _WARMUP_RUNS + runs for found in times_us.values()) or not times_us:
        raise EngineError("ONNX Runtime's profile does not hold every run of every node")
    sources = covered_nodes(named.graph, rewritten)
    return tuple(
        LayerTime(
            name,
            kinds[name],
            median(found[_WARMUP_RUNS:]) / 1e3,
            sources.get(name, ()),
            "blocked layout" if name.endswith(_BLOCKED_SUFFIX) else "",
        )
        for name, found in times_us.items()
    )


def named_nodes(model: Any) -> Any:
    """The model with a name for every node of its graph; the profile goes by names."""
    taken = {node.name for node in model.graph.node}
    for index, node in enumerate(model.graph.node):
        if not node.name:
            name = f"{node.op_type}_{index}"
            while name in taken:
                name += "_"
            taken.add(name)
            node.name = name
    return model


def _outer_events(events: Sequence[Any]) -> list[Any]:
    """The kernels' events without those of nodes in the bodies of loops and branches."""
    found = [
        event
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL_SUFFIX)
    ]
    spans = [
        (event["ts"], event["ts"] + event["dur"])
        for event in found
        if event["args"]["op_name"] in _WITH_BODY
    ]
    return [
        event
        for event in found
        if not any(
            start <= event["ts"]
            and event["ts"] + event["dur"] <= end
            and (start, end) != (event["ts"], event["ts"] + event["dur"])
            for start, end in spans
        )
    ]


def covered_nodes(original: Any, rewritten: Any) -> dict[str, tuple[str, ...]]:
    """Node of the rewritten graph -> names of the original nodes that it computes.

    Args:
        original, rewritten: ``onnx.GraphProto`` before and after ONNX Runtime's optimisations.

    Returns:
        An entry per rewritten node, empty for what only moves data and what cannot be traced back.
        Original nodes that depend on no input of the graph (constants) are not in it.
    """
    producer = {output: node for node in original.node for output in node.output}
    given = {node.name: [*node.output] for node in original.node}
    taken: set[str] = set()
    known = set(producer) | {value.name for value in original.input}
    variable = _depends_on_input(original)
    origin: dict[str, str] = {name: name for name in known}
    covered: dict[str, tuple[str, ...]] = {}
    for node in rewritten.node:
        inputs = {origin.get(name, name) for name in node.input if name}
        if node.op_type in _HAND_OVER:
            if node.output[0] not in known:
                origin[node.output[0]] = origin.get(node.input[0], node.input[0])
            covered[node.name] = ()
            continue
        made = _original_tensor(node, known)
        if len(node.input) > 3 and node.input[3] and made[0] is not None:
            made[0] = _with_sum(made[0], inputs, node, original)
        found: list[str] = []
        for position, name in enumerate(made):
            if name is None:
                continue
            origin[node.output[position]] = name
            found += _between(name, inputs | taken, producer, variable)
        covered[node.name] = tuple(dict.fromkeys(found))
        # Of an addition that a convolution took over the way back would lead through all before it.
        taken.update(name for done in found for name in given[done])
    _share_with_parts(covered, rewritten)
    return covered


def _share_with_parts(covered: dict[str, tuple[str, ...]], rewritten: Any) -> None:
    """Give a node whose result is no original tensor the nodes of the one that takes it.

    One original node can become several: a product of matrices with a sum is Reshape, Gemm,
    Reshape, and the last of them alone gives a tensor that was there before.
    """
    takers: dict[str, Any] = {}
    for node in rewritten.node:
        takers |= {name: node for name in node.input if name and name not in takers}
    for node in reversed(rewritten.node):
        if not covered[node.name] and node.op_type not in _MOVES:
            found = [takers[name].name for name in node.output if name in takers]
            covered[node.name] = next((covered[name] for name in found if covered[name]), ())


def _original_tensor(node: Any, known: set[str]) -> list[str | None]:
    """The original tensor that each output is, where it can be told."""
    made: list[str | None] = [name if name in known else None for name in node.output]
    if made[0] is None:
        bare = node.name.removesuffix(_BLOCKED_SUFFIX)
        # A node that was only moved into the blocked layout keeps its name: so does its output.
        made[0] = next((name for name in (bare, f"{bare}_output_0") if name in known), None)
    return made


def _with_sum(tensor: str, inputs: set[str], node: Any, original: Any) -> str:
    """What a convolution gives that took over an addition, and perhaps the activation behind it.

    It keeps the name of the convolution. The addition is that of its result and another input.
    """
    users = [user for user in original.node if tensor in user.input]
    for user in users:
        if user.op_type in ("Add", "Sum") and inputs & {*user.input} - {tensor}:
            tensor = user.output[0]
            after = [item for item in original.node if tensor in item.input]
            if any(part.name == "activation" for part in node.attribute) and len(after) == 1:
                return str(after[0].output[0])
            break
    return tensor


def _between(
    tensor: str, inputs: set[str], producer: Mapping[str, Any], variable: set[str]
) -> list[str]:
    """Names of the original nodes on the way back from ``tensor`` to ``inputs``."""
    found: list[str] = []
    waiting = [tensor]
    seen = set(inputs)
    while waiting:
        current = waiting.pop()
        if current in seen or current not in variable or current not in producer:
            continue
        seen.add(current)
        node = producer[current]
        found.append(node.name)
        waiting.extend(node.input)
    return found[::-1]


def _depends_on_input(graph: Any) -> set[str]:
    """Tensors whose values are not known before the inputs are; shapes of tensors are constants."""
    variable = {value.name for value in graph.input}
    for node in graph.node:  # ONNX graphs are sorted
        if node.op_type != "Shape" and any(name in variable for name in node.input):
            variable.update(node.output)
    return variable
