"""``latlut doctor``: what works on this machine and, for the rest, how to get it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from latlut.cli.commands import Command
from latlut.cli.output import json_option, note, print_json

if TYPE_CHECKING:
    from latlut.engines.selftest import EngineTest
    from latlut.machine.gpu_state import GpuState


@click.command(cls=Command)
@json_option
def doctor(as_json: bool) -> None:
    """Try every engine on a small convolution and report what works here.

    Each installed engine builds and runs the convolution and is compared with PyTorch; for a
    missing one, the command that installs it is printed. For each GPU its state is shown, with the
    commands that would lock its clocks; they are not run. Exit code 1 if no engine works.
    """
    from dataclasses import asdict

    from latlut.engines import run_environment
    from latlut.engines.selftest import never_run, try_engines
    from latlut.machine.gpu_state import advice, state_of
    from latlut.machine.gpus import detect_gpus, gpu_absence_reason
    from latlut.machine.targets import cpu_target
    from latlut.operators.graph_cache import GraphCache

    facts = run_environment()
    results = try_engines()
    cpu = cpu_target()
    gpus = [(gpu, state_of(gpu.uuid)) for gpu in detect_gpus()]
    cache = GraphCache()
    if as_json:
        print_json(
            {
                "engines": [asdict(result) for result in results],
                "never_run_on_hardware": never_run(),
                "cpu": cpu.title,
                "gpus": [
                    vars(gpu) | {"state": vars(state), "clock_commands": advice(state)}
                    for gpu, state in gpus
                ],
                "graph_cache": {"folder": str(cache.folder), "bytes": cache.size_bytes()},
                "environment": facts,
            }
        )
    else:
        click.echo(f"CPU: {cpu.title}, usable CPUs: {facts.get('allowed_cpus')}")
        for gpu, state in gpus:
            click.echo(f"GPU {gpu.index}: {gpu.name}, driver {gpu.driver}")
            click.echo(f"       {_state_text(state)}")
            for command in advice(state):
                note(f"       lock or unlock its clocks with: {command}")
        if not gpus:
            click.echo(f"GPU: none ({gpu_absence_reason()})")
        for result in results:
            _print_result(result)
        if combinations := never_run():
            note(f"not yet tested on real hardware: {', '.join(combinations)}")
        note(f"cached graphs: {cache.size_bytes() / 1e6:.0f} MB in {cache.folder}")
    if not any(result.works for result in results):
        click.get_current_context().exit(1)


def _print_result(result: EngineTest) -> None:
    click.echo(f"{'works' if result.works else 'no':6} {result.title}: {result.detail}")
    for line in result.remedy.splitlines():
        note(f"       {line}")
    if result.precisions:
        note(f"       --precision {'|'.join(result.precisions)}")
    for option in result.options:
        if len(option.choices) > 1:
            setting = f"{option.name}={'|'.join(option.choices)}"
            note(f"       --engine-option {setting}  ({option.description})")
    if result.device and not result.is_proven:
        note("       not yet tested on real hardware: check its numbers before relying on them")


def _state_text(state: GpuState) -> str:
    def shown(value: object, unit: str) -> str:
        return "unknown" if value is None else f"{value} {unit}"

    held, others = state.throttle_reasons, state.other_processes
    return (
        f"SM {shown(state.sm_mhz, 'MHz')}, memory {shown(state.memory_mhz, 'MHz')}, "
        f"{shown(state.temperature_c, '°C')}, {shown(state.power_w, 'W')} of at most "
        f"{shown(state.power_limit_w, 'W')}, clocks held by: "
        f"{'unknown' if held is None else ', '.join(held) or 'nothing'}, other processes: "
        f"{'unknown' if others is None else ', '.join(map(str, others)) or 'none'}"
    )
