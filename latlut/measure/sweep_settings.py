"""How a sweep goes over its plan, and the identity of what it measures."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from latlut.engines.base import Engine
from latlut.errors import EngineError, SpecError
from latlut.machine.gpu_state import power_mode
from latlut.measure.timing import TimingSettings
from latlut.table.identity import IN_CONTEXT, MODES, STANDALONE, Identity


@dataclass(frozen=True)
class SweepSettings:
    """How a sweep goes over its plan.

    ``passes`` over the whole plan; ``budget_s`` of wall time after which it stops and can be
    continued, None for no limit; ``group`` how many op specs are timed side by side;
    ``sentinels`` how many op specs accompany every group; ``seed`` of the random order;
    ``rebuilds`` how many independent builds of each op spec the passes take turns with, pass p
    measuring build p modulo ``rebuilds``.

    Raises:
        SpecError: fewer passes than builds.
    """

    timing: TimingSettings = field(default_factory=TimingSettings)
    passes: int = 5
    budget_s: float | None = None
    group: int = 12
    sentinels: int = 3
    seed: int = 0
    rebuilds: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.rebuilds <= self.passes:
            raise SpecError(
                f"{self.passes} passes cannot measure {self.rebuilds} builds: a pass measures one "
                f"build; with --rebuilds {self.rebuilds} use --passes {2 * self.rebuilds} or more"
            )

    def to_dict(self) -> dict[str, object]:
        """JSON-able."""
        return asdict(self)


def identity_of(engine: Engine, target: str, *, statistic: str, mode: str = STANDALONE) -> Identity:
    """The identity of what ``engine`` measures here."""
    # Only a device with a UUID is a GPU; a Jetson's power mode is as much a part of it as a clock.
    return Identity(
        target=target,
        device_model=engine.device.model,
        engine=engine.name,
        engine_version=engine.version,
        precision=engine.precision,
        threads=engine.threads,
        mode=mode,
        statistic=statistic,
        power_mode=power_mode() if engine.device.uuid else "",
        driver=engine.device.driver,
        engine_options=engine.options_text,
    )


def check_rebuilds(engine: Engine, rebuilds: int) -> None:
    """Refuse, with EngineError, several builds of an engine that always builds the same."""
    if rebuilds > 1 and not engine.chooses_tactics:
        raise EngineError(
            f"--rebuilds {rebuilds} makes no sense with {engine.title}: it builds the same each "
            "time; leave --rebuilds out"
        )


def check_mode(engine: Engine, mode: str) -> None:
    """Refuse a mode that there is not (SpecError), or that the engine cannot measure in.

    Raises:
        EngineError: in-context entries of an engine whose sessions cannot take turns.
    """
    if mode not in MODES:
        raise SpecError(f"the mode is one of {', '.join(MODES)}, received {mode!r}")
    if mode == IN_CONTEXT and not engine.supports_in_context:
        raise EngineError(
            f"{engine.title} cannot measure operators in context: that takes two sessions that "
            "are open side by side, and it has one at a time; use --mode standalone"
        )
