"""What the commands measure and search, as functions that take the commands' names.

    import latlut

    latlut.profile("tiny", "profiles/mine.db")
    latlut.validate("profiles/mine.db", networks=30)
    latlut.bench("fasterseg-student", input_size=(256, 512))
    latlut.run_search("profiles/mine.db", target_ms=8)

Each chooses device and engine as its command does, holds the device while it measures, and runs in
this process: an engine that crashes ends it, where the command would name the operator. For all
settings see the functions that they call: ``measure.profile``, ``measure.bench``,
``validation.validate`` and ``search.cosearch.run``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlut.engines import run_environment
from latlut.engines.choosing import DeviceChoice, choose_engine
from latlut.measure.bench import BenchSettings, bench_workload
from latlut.measure.bench_result import BenchResult
from latlut.measure.held_device import measuring_on
from latlut.measure.plans import Plan, load_plan, plan_from_ops
from latlut.measure.profile import profile as measure_plan
from latlut.measure.space_to_use import space_to_use
from latlut.measure.sweep_report import SweepSummary
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.operators.module_files import MODULE_FILES, read_module
from latlut.operators.workloads import Workload
from latlut.pricing.named import DEFAULT_SIZE, opened
from latlut.progress import Progress
from latlut.spaces.architecture import Architecture
from latlut.table.table import LatencyTable
from latlut.validation import validate as validating
from latlut.validation.validate import Validation, ValidationSettings

if TYPE_CHECKING:
    from torch import nn

    from latlut.search.cosearch.folder import Found
    from latlut.search.runs.listening import RunListener

Listener = Callable[[Progress], None]


def profile(
    plan: Plan | str | Path | Sequence[str],
    table: str | Path,
    *,
    gpu: str | None = None,
    engine: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    input_size: tuple[int, int] | None = None,
    batch: int | None = None,
    mode: str | None = None,
    settings: SweepSettings | None = None,
    listener: Listener | None = None,
) -> SweepSummary:
    """Measure what a table lacks of a plan; ``latlut profile``.

    Args:
        plan: a shipped plan's name, a TOML file, op specs as text, or a plan.
        table: file; made if it is not there, continued if it is of the same device and engine.
        gpu: a GPU's name in ``latlut targets``; without it what the table was measured on, for a
            new table the CPU.
        engine: an engine's name; the table's, or ONNX Runtime on a CPU and TensorRT on a GPU.
        precision: arithmetic of the engine; the table's, or ``fp32``.
        threads: of one inference on a CPU; the table's, or 1.
        input_size: (height, width) of the image in pixels, instead of the plan's.
        batch: images per inference, instead of the plan's.
        mode: ``standalone`` or ``in-context``; the table's, or the engine's default.
        settings: passes, budget, timing; five passes if not given.
        listener: told of each reading.

    Raises:
        LatlutError: a plan, device or engine that is not here, a table of something else, or
            another process that measures on the device.
    """
    wanted = _plan(plan, input_size, batch)
    place = Path(table)
    choice = DeviceChoice(gpu, gpu is None, engine, precision or "fp32", threads or 1)
    settings = settings or SweepSettings()
    if place.exists():
        with LatencyTable.open(place) as existing:
            own = existing.identity
        given = {"precision": precision, "threads": threads, "engine_options": None}
        as_asked = choice._replace(cpu=False)
        choice = as_asked.completed(own, [name for name, value in given.items() if value is None])
        settings = replace(settings, timing=replace(settings.timing, statistic=own.statistic))
        mode = mode or own.mode
    target, chosen = choose_engine(choice)
    return measure_plan(wanted, chosen, target, place, settings, mode=mode, listener=listener)


def bench(
    network: str | Path | Architecture | nn.Module,
    *,
    gpu: str | None = None,
    engine: str | None = None,
    precision: str = "fp32",
    threads: int = 1,
    input_size: tuple[int, int] | None = None,
    batch: int | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    settings: BenchSettings | None = None,
    listener: Listener | None = None,
) -> BenchResult:
    """Measure a whole network; ``latlut bench``.

    Args:
        network: an ONNX file, an OpenVINO model (.xml), a TorchScript module or exported program,
            an architecture's name or file, the folder of a training, a hand-designed network's
            name, an architecture, or a module of PyTorch.
        gpu: a GPU's name in ``latlut targets``; without it the CPU.
        engine: an engine's name; if not given the one that the file is for, else ONNX Runtime on
            a CPU and TensorRT on a GPU.
        precision: arithmetic of the engine.
        threads: of one inference on a CPU.
        input_size: (height, width) of the image in pixels; the network's own, or 1024x2048.
        batch: images per inference.
        shapes: whole shapes of inputs by name, of ONNX and OpenVINO files.
        settings: passes, timing; five passes if not given.
        listener: told of each reading.

    Raises:
        LatlutError: a network, device or engine that is not here, or sizes that do not fit.
    """
    workload = _workload(network, input_size, batch, shapes)
    is_module_file = isinstance(network, (str, Path)) and Path(network).suffix in MODULE_FILES
    own = "pytorch" if is_module_file else workload.only_engine
    _, chosen = choose_engine(DeviceChoice(gpu, gpu is None, engine or own, precision, threads))
    with measuring_on(chosen):
        return bench_workload(chosen, workload, settings, listener=listener)


def validate(
    table: LatencyTable | str | Path,
    *,
    networks: int = 60,
    seed: int = 0,
    plan: str | None = None,
    input_size: tuple[int, int] | None = None,
    settings: ValidationSettings | None = None,
    listener: Listener | None = None,
) -> Validation:
    """Measure random networks on the table's engine and compare them; ``latlut validate``.

    The result is kept in the table, where ``latlut calibrate`` finds it.

    Args:
        table: a name or file, or a table that is open for writing.
        networks: how many.
        seed: of the sampler.
        plan: whose space to sample; the table's latest if not given.
        input_size: (height, width) of the image in pixels; the table's if not given.
        settings: instead of the default ones; ``networks`` and ``seed`` replace its own.
        listener: told of each visit.

    Raises:
        LatlutError: the table's device or engine is not here, or it lacks op specs of a network.
    """
    chosen = replace(settings or ValidationSettings(), networks=networks, seed=seed)
    with opened(table, is_writable=True) as held:
        own = held.identity
        target, engine = choose_engine(DeviceChoice.of_identity(own))
        held.check_identity(
            identity_of(engine, target.name, mode=own.mode, statistic=own.statistic)
        )
        where = space_to_use(held, plan, input_size)
        with measuring_on(engine):
            found = validating.validate(held, engine, where, chosen, listener=listener)
        validating.store(held, found, chosen, where)
    return found


def run_search(
    table: LatencyTable | str | Path,
    target_ms: float | None = None,
    *,
    folder: str | Path = "runs/search",
    preset: str | Path = "tiny",
    data: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    listener: RunListener | None = None,
    accelerator: str = "auto",
    devices: int = 1,
) -> Found | None:
    """Search for a teacher and a student whose latency hits a target; ``latlut search``.

    Args:
        table: prices networks: an open table, a name, or a file.
        target_ms: latency of the student by the table, milliseconds; that of random networks if
            not given.
        folder: of the run; one that holds this very search, stopped, is continued.
        preset: ``tiny``, ``small``, ``paper``, or a TOML file.
        data: data set, ``NAME`` or ``NAME:FOLDER``; the preset's if not given.
        overrides: any other settings, ``{"search.epochs": 5}``.
        listener: told how it goes.
        accelerator: ``auto``, ``cpu`` or ``gpu``.
        devices: processes, one per device.

    Returns:
        What was found; None on all processes but the first.

    Raises:
        LatlutError: settings, table, data or folder that do not fit each other; no student near
            the target.
    """
    from latlut.search.cosearch import run
    from latlut.search.cosearch.settings import load_settings

    given = {"latency.target_ms": target_ms, "data.name": data}
    chosen = {name: value for name, value in given.items() if value is not None}
    settings = load_settings(preset, chosen | dict(overrides or {}))
    with opened(table) as prices:
        return run.run_search(
            prices, settings, Path(folder), listener=listener, environment=run_environment,
            accelerator=accelerator, devices=devices,
        )  # fmt: skip


def _plan(
    plan: Plan | str | Path | Sequence[str], input_size: tuple[int, int] | None, batch: int | None
) -> Plan:
    if isinstance(plan, Plan):
        return plan
    if isinstance(plan, Path) or (isinstance(plan, str) and "->" not in plan):
        return load_plan(plan, input_size, batch)
    return plan_from_ops([plan] if isinstance(plan, str) else plan, batch)


def _workload(
    network: str | Path | Architecture | nn.Module,
    input_size: tuple[int, int] | None,
    batch: int | None,
    shapes: Mapping[str, Sequence[int]] | None,
) -> Workload:
    from latlut.operators.ir_files import read_ir
    from latlut.operators.onnx_files import read_onnx
    from latlut.search.networks.deployable import from_architecture
    from latlut.search.networks.finding import find_network

    size = input_size or DEFAULT_SIZE
    if isinstance(network, Architecture):
        return from_architecture(network, "architecture").workload(size, batch or 1)
    if not isinstance(network, (str, Path)):
        return Workload.from_module(network, [(batch or 1, 3, *size)], type(network).__name__)
    path, ending = Path(network), Path(network).suffix.lower()
    if ending in (".onnx", ".xml"):
        read = read_onnx if ending == ".onnx" else read_ir
        return read(path, input_size, batch, shapes=dict(shapes or {}))
    if ending in MODULE_FILES:
        return read_module(path, input_size, batch, [])
    found = find_network(str(network))
    return found.workload(input_size or found.input_size or DEFAULT_SIZE, batch or 1)
