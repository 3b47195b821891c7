"""How commands talk: results to stdout, progress and remarks to stderr, --json for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from textwrap import indent
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from latlut.opspec import OpSpec
    from latlut.pricing.estimator import Estimate
    from latlut.table.table import LatencyTable

Command = TypeVar("Command", bound=Callable[..., Any])

QUIET_HELP = "Print the result only: no progress, no notes."
#: Where a context holds that notes are not wanted.
QUIET = "latlut.quiet"


def json_option(command: Command) -> Command:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def quiet_option(command: Command) -> Command:
    """--quiet, of a command that is told of it; all others have it too (``cli.commands``)."""
    return click.option("-q", "--quiet", is_flag=True, callback=keep_quiet, help=QUIET_HELP)(
        command
    )


def keep_quiet(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
    """Remember whether --quiet was given: ``note`` and ``remark`` look there."""
    ctx.meta[QUIET] = value
    return value


def is_quiet() -> bool:
    """Whether the running command prints its result only."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(QUIET))


def note(text: str = "") -> None:
    """A line on stdout that is no part of the result, unless the command is quiet."""
    if not is_quiet():
        click.echo(text)


def details_option(command: Command) -> Command:
    """--details."""
    return click.option("--details", is_flag=True, help="Print all that was found out.")(command)


def print_json(value: object) -> None:
    """One JSON document on stdout; NaN becomes null."""
    click.echo(json.dumps(_plain(value), indent=2))


def print_json_rows(rows: Iterable[Mapping[str, object]]) -> int:
    """The same of a list that need not fit into memory; how many rows it has."""
    count = 0
    for row in rows:
        click.echo(",\n" if count else "[\n", nl=False)
        click.echo(indent(json.dumps(_plain(row), indent=2), "  "), nl=False)
        count += 1
    click.echo("\n]" if count else "[]")
    return count


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def counted(count: int, noun: str) -> str:
    """``1 pass``, ``2 passes``."""
    plural = "" if count == 1 else "es" if noun.endswith(("s", "ch")) else "s"
    return f"{count} {noun}{plural}"


def percent_text(value: float) -> str:
    """See ``stats.half_widths.percent_text``."""
    from latlut.stats import half_widths

    return half_widths.percent_text(value)


def remark(text: str, is_silent: bool = False) -> None:
    """A remark on stderr, unless the command is quiet."""
    if not (is_silent or is_quiet()):
        click.echo(text, err=True)


def remark_predictions(table: LatencyTable, is_quiet: bool = False) -> None:
    """Say how many of a table's entries nobody has measured, where there are such."""
    if count := table.predicted_count:
        remark(
            f"{count} of {len(table)} entries of {table.title} are predicted, not measured",
            is_quiet,
        )


def remark_predicted_part(table: LatencyTable, specs: Iterable[OpSpec]) -> dict[str, float]:
    """Say how much of a space's latencies nobody has measured, where that is some of them.

    Args:
        table: prices the space.
        specs: each op spec of the space once.

    Returns:
        The same for JSON: ``predicted``, how many of the op specs are, and ``predicted_share`` of
        their latencies, 0 to 1.
    """
    from latlut.pricing.estimator import estimate

    if not table.predicted_count:
        return {"predicted": 0, "predicted_share": 0.0}
    found = estimate(list(specs), table, is_calibrated=False, allow_missing=True)
    if found.predicted:
        remark(
            f"{len(found.predicted)} of {len(found.terms)} operator configurations of the space "
            f"are predicted, not measured: {100 * found.predicted_share:.0f}% of their latencies"
        )
    return {"predicted": len(found.predicted), "predicted_share": found.predicted_share}


def predicted_share(estimates: Sequence[Estimate]) -> float:
    """How much of networks' estimates is predicted on average, 0 to 1; 0 of no networks."""
    return sum(item.predicted_share for item in estimates) / max(len(estimates), 1)


def predicted_text(estimates: Sequence[Estimate]) -> str:
    """How much of networks' estimates is predicted; empty where all of it was measured."""
    shares = [100 * item.predicted_share for item in estimates]
    if not any(shares):
        return ""
    if len(shares) == 1:
        return f"predicted, not measured: {shares[0]:.0f}% of the estimate"
    return (
        f"predicted, not measured: {sum(shares) / len(shares):.0f}% of an estimate (mean of "
        f"{len(shares)} networks; {min(shares):.0f} to {max(shares):.0f}%)"
    )


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    title: str | None = None,
    *,
    spare: Sequence[str] = (),
) -> None:
    """A table on stdout, as wide as the terminal; nothing is cut off (``cli.layout``).

    Columns named in ``spare`` are left out where it is too narrow for them, the first one first.
    """
    from latlut.cli.layout import output_width, table_text

    header, body, left_out = table_text(columns, rows, output_width(), spare)
    if title:
        click.echo(title)
    for line in header:
        click.secho(line, bold=True)
    for line in body:
        click.echo(line)
    if left_out:
        remark(f"too narrow for: {', '.join(left_out)}")


def waiting(is_wanted: bool, is_quiet: bool) -> Callable[[str], None] | None:
    """What --wait tells; None where it was not asked for."""
    return (lambda text: remark(text, is_quiet)) if is_wanted else None


def duration_text(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3.4 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def interval_text(value: float, low: float | None, high: float | None, unit: str = "ms") -> str:
    """``12.3 ms (12.1 to 12.5)``; see ``range_text``."""
    return f"{value:.4g} {unit} ({range_text(low, high)})"


def range_text(low: float | None, high: float | None) -> str:
    """``12.1 to 12.5``; where an end is None or not finite, what is known."""
    ends = [end if end is not None and math.isfinite(end) else None for end in (low, high)]
    if ends[0] is not None and ends[1] is not None:
        return f"{ends[0]:.4g} to {ends[1]:.4g}"
    if ends[1] is not None:
        return f"at most {ends[1]:.4g}, no lower end is known"
    if ends[0] is not None:
        return f"at least {ends[0]:.4g}, no upper end is known"
    return "interval unknown"
