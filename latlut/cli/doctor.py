"""``latlut doctor``: what works on this machine and, for the rest, how to get it."""

from __future__ import annotations

import click

from latlut.cli.output import json_option, print_json


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Try every engine on a small convolution and say what works here.

    Each engine that is installed builds the convolution, runs it and is compared with PyTorch;
    for what is missing the command that gets it is printed.
    """
    from latlut.environment import collect_environment
    from latlut.gpus import detect_gpus, gpu_absence_reason
    from latlut.graphs import GraphCache
    from latlut.selftest import try_engines
    from latlut.targets import cpu_target

    facts = collect_environment()
    results = try_engines()
    cpu = cpu_target()
    gpus = detect_gpus()
    cache = GraphCache()
    if as_json:
        print_json(
            {
                "engines": [vars(result) for result in results],
                "cpu": cpu.title,
                "gpus": [vars(gpu) for gpu in gpus],
                "graph_cache": {"folder": str(cache.folder), "bytes": cache.size_bytes()},
                "environment": facts,
            }
        )
    else:
        allowed = facts.get("allowed_cpus")
        click.echo(f"CPU: {cpu.title}, usable CPUs: {allowed}")
        for gpu in gpus:
            click.echo(f"GPU {gpu.index}: {gpu.name}, driver {gpu.driver}")
        if not gpus:
            click.echo(f"GPU: none ({gpu_absence_reason()})")
        for result in results:
            click.echo(f"{'works' if result.works else 'no':6} {result.title}: {result.detail}")
            if result.remedy:
                click.echo(f"       {result.remedy}")
        click.echo(f"cached graphs: {cache.size_bytes() / 1e6:.0f} MB in {cache.folder}")
    if not any(result.works for result in results):
        click.get_current_context().exit(1)
