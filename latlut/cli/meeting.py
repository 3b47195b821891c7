"""Whether a network meets its target: the last line of what measures one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latlut.errors import LatlutError

if TYPE_CHECKING:
    from latlut.operators.workloads import Workload
    from latlut.pricing.estimator import Estimate

#: A measured latency may exceed the target by this share: as near as a search comes by the table.
TOLERANCE = 0.02


def is_met(target_ms: float, measured_ms: float, cpu_share: float | None) -> bool | None:
    """Whether a latency is within its target; None where a disturbed machine may have missed it.

    A disturbance only slows: what is within the target nevertheless is met.
    """
    from latlut.stats.machine_speed import is_disturbed

    if measured_ms <= target_ms * (1 + TOLERANCE):
        return True
    return None if is_disturbed(cpu_share) else False


def meeting_text(
    target_ms: float | None, table_ms: float | None, measured_ms: float, cpu_share: float | None
) -> str:
    """``target 8.55 ms, table 8.43, measured 8.60: met``; what is not known is left out.

    Args:
        target_ms: that was to be met.
        table_ms: estimated by a table.
        measured_ms: what it took.
        cpu_share: that the measurement got; see ``is_met``.
    """
    numbers = {"target": target_ms, "table": table_ms, "measured": measured_ms}
    known = [f"{name} {ms:.3f} ms" for name, ms in numbers.items() if ms is not None]
    if target_ms is not None:
        met = is_met(target_ms, measured_ms, cpu_share)
        over = f"missed by {100 * (measured_ms / target_ms - 1):.1f}%"
        found = "not known, the machine was disturbed" if met is None else "met" if met else over
    else:
        found = f"{100 * (measured_ms / (table_ms or measured_ms) - 1):+.1f}% against the table"
    return f"{', '.join(known)}: {found}"


def table_estimate(
    table_name: str, target: str, workload: Workload, num_classes: int | None
) -> Estimate:
    """What a table says of the network that is about to be measured.

    Args:
        table_name: prices it.
        target: names it on the command line.
        workload: what is measured.
        num_classes: that were asked for.

    Raises:
        LatlutError: not a network that a table prices, or entries are missing.
    """
    from latlut.cli.onnx import cut_as_in
    from latlut.operators.onnx_files import OnnxWorkload
    from latlut.pricing.estimator import estimate
    from latlut.search.networks.finding import find_network
    from latlut.table.table import LatencyTable

    with LatencyTable.open(table_name) as table:
        if isinstance(workload, OnnxWorkload):
            (cut,) = cut_as_in(table, [workload])
            if cut.unpriced:
                raise LatlutError(
                    f"{target} has parts that no table prices: leave --table out\n  "
                    + "\n  ".join(cut.unpriced[:5])
                )
            return estimate(cut.op_specs(), table, is_calibrated=True)
        image, batch = workload.image_size, workload.batch
        architecture = find_network(target, num_classes).architecture
        if architecture is None or image is None or batch is None:
            raise LatlutError(
                f"{target} is no network of operators that a table prices: leave --table out, or "
                "export it and profile its pieces with: latlut profile --onnx FILE"
            )
        return estimate(architecture.op_specs(image, batch), table, is_calibrated=True)
