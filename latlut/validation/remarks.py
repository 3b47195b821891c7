"""What is worth knowing of a table's entries beside the verdict: nothing here decides it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from latlut.machine.cpu import cpu_model
from latlut.machine.gpus import detect_gpus
from latlut.table import history
from latlut.table.entry import Entry
from latlut.table.summary import HOST_BOUND, NEAR_LAUNCH_FLOOR, OTHER_PROCESSES
from latlut.table.table import LatencyTable


def remarks(table: LatencyTable, held: Sequence[Entry]) -> list[str]:
    """One sentence each, of predictions, differences, GPUs, builds and devices.

    Args:
        table: the table.
        held: all its entries.
    """
    entries = [entry for entry in held if not entry.is_predicted]
    return [
        *_prediction_remarks([entry for entry in held if entry.is_predicted], len(held)),
        *_difference_remarks(table, entries),
        *_gpu_remarks(table, entries),
        *_build_remarks(entries),
        *_device_remarks(table, entries),
    ]


def measured_elsewhere(table: LatencyTable) -> str:
    """What a table was measured on; empty where this machine has that device."""
    own = table.identity
    if own.target == "cpu":
        here = [cpu_model()]
    else:
        here = [gpu.name for gpu in detect_gpus()]
    if own.device_model in here:
        return ""
    word = "is" if own.target == "cpu" else "has"
    names = ", ".join(dict.fromkeys(here)) or "no such device"
    made = f"measured with {own.engine} {own.engine_version} on {own.device_model}"
    return f"{made}; this machine {word} {names}"


def _prediction_remarks(predicted: Sequence[Entry], held: int) -> list[str]:
    if not predicted:
        return []
    widths = [entry.ci_percent for entry in predicted if entry.ci_percent is not None]
    within = f", 95% of them within ±{np.quantile(widths, 0.95):.1f}%" if widths else ""
    known = max(entry.predicted_from or 0 for entry in predicted)
    return [
        f"{len(predicted)} of {held} entries are predicted from {known} others{within}: they are "
        "in no other number here"
    ]


def _difference_remarks(table: LatencyTable, entries: Sequence[Entry]) -> list[str]:
    if not table.identity.is_in_context:
        return []
    near_zero = sum(not entry.is_distinguishable for entry in entries)
    negative = [entry for entry in entries if entry.latency_ms < 0]
    beyond = sum(entry.is_distinguishable for entry in negative)
    found = []
    if near_zero:
        found.append(
            f"{near_zero} of {len(entries)} entries are not distinguishable from zero: they are "
            "not in the percentage"
        )
    if negative:
        found.append(
            f"{len(negative)} entries are negative, {beyond} of them beyond their interval: the "
            "engine is faster with these operators than with their neighbours alone"
        )
    return found


def _gpu_remarks(table: LatencyTable, entries: Sequence[Entry]) -> list[str]:
    found = []
    for warning, text in (
        (NEAR_LAUNCH_FLOOR, "take less than twice what an empty kernel takes"),
        (HOST_BOUND, "take the host more than 80% of their time to launch"),
        (OTHER_PROCESSES, "were measured with other processes on the GPU"),
    ):
        count = sum(warning in entry.warnings for entry in entries)
        found += [f"{count} of {len(entries)} entries {text}"] if count else []
    launches = Counter(entry.launch for entry in entries if entry.launch)
    found += [f"{n} of {len(entries)} entries: {text}" for text, n in launches.most_common()]
    capped, groups = history.power_capped_groups(table)
    if capped:
        found.append(
            f"the GPU was at its power limit beside {capped} of {groups} groups: "
            "its clocks followed the load; lower, locked clocks repeat better (latlut doctor)"
        )
    return found


def _build_remarks(entries: Sequence[Entry]) -> list[str]:
    spreads = [entry.build_sd for entry in entries if entry.build_sd is not None]
    if not spreads:
        return []
    within = [entry.pass_sd for entry in entries if entry.pass_sd is not None]
    beside = f", passes on one build by {100 * np.median(within):.1f}%" if within else ""
    return [
        f"builds of one operator configuration differ by {100 * np.median(spreads):.1f}% "
        f"(standard deviation, median over entries){beside}; both are in the intervals"
    ]


def _device_remarks(table: LatencyTable, entries: Sequence[Entry]) -> list[str]:
    spreads = [entry.device_sd for entry in entries if entry.device_sd is not None]
    found = [str(item) for item in history.quarantines(table)]
    if spreads:
        found.append(
            f"devices differ by {100 * np.median(spreads):.1f}% in one operator configuration "
            "beyond their usual speed (standard deviation, median over entries); that is in the "
            "intervals"
        )
    return found
