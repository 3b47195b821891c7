"""The random choices of a generated street: ``sample_scene``.

What makes the scenes worth learning from: road and sidewalk share one surface and differ by
place; boards take their colours from the facades behind them; facades have panels as bright as
signs; poles, signs and people occur from a few metres to where they are one pixel wide.
"""

from __future__ import annotations

import numpy as np

from latlut.search.data.street.layout import Building, Camera, Colour, Light, Scene, Street, Thing

#: Facades, and the boards that are to be told from them by shape and place.
FACADES: tuple[Colour, ...] = (
    (0.62, 0.42, 0.34), (0.72, 0.66, 0.55), (0.55, 0.53, 0.52), (0.78, 0.74, 0.70),
    (0.50, 0.32, 0.26), (0.66, 0.57, 0.43), (0.43, 0.45, 0.49), (0.80, 0.70, 0.50),
    (0.36, 0.42, 0.52), (0.58, 0.25, 0.20), (0.45, 0.50, 0.40),
)  # fmt: skip
PAINTS: tuple[Colour, ...] = (
    (0.75, 0.75, 0.77), (0.10, 0.10, 0.12), (0.55, 0.08, 0.08), (0.10, 0.18, 0.42),
    (0.90, 0.90, 0.88), (0.30, 0.32, 0.34), (0.72, 0.62, 0.15), (0.12, 0.32, 0.22),
    (0.45, 0.45, 0.48), (0.50, 0.30, 0.16),
)  # fmt: skip
SIGNALS: tuple[Colour, ...] = ((0.80, 0.10, 0.10), (0.10, 0.25, 0.70), (0.95, 0.80, 0.10))
SKINS: tuple[Colour, ...] = ((0.85, 0.65, 0.52), (0.55, 0.38, 0.28), (0.35, 0.24, 0.18))
LEAVES: tuple[Colour, ...] = ((0.20, 0.36, 0.14), (0.30, 0.40, 0.18), (0.46, 0.36, 0.12))


def sample_scene(random: np.random.Generator) -> Scene:
    """A street drawn at random; equal generators give equal streets."""
    street = _street(random)
    end_m = random.uniform(60, 140)
    right_m = street.middle_m + street.road_m + random.uniform(2.0, 5.0) + street.verge_m
    left_m = street.middle_m - street.road_m - random.uniform(2.0, 5.0) - street.verge_m
    return Scene(
        camera=Camera(
            focal_widths=random.uniform(0.60, 0.90),
            horizon_share=random.uniform(0.36, 0.52),
            vanishing_share=random.uniform(0.38, 0.62),
            height_m=random.uniform(1.5, 2.4),
        ),
        light=_light(random, left_m, right_m),
        street=street,
        buildings=(
            *_buildings(random, left_m, street, end_m),
            *_buildings(random, right_m, street, end_m),
        ),
        things=_things(random, street, left_m, right_m),
        end_m=end_m,
        hood_share=random.uniform(0.04, 0.10) if random.random() < 0.35 else 0.0,
        texture_seed=int(random.integers(2**31)),
    )


def _pick(random: np.random.Generator, colours: tuple[Colour, ...], spread: float = 0.08) -> Colour:
    red, green, blue = colours[random.integers(len(colours))]
    gain = 1 + random.uniform(-2, 2) * spread
    shift = random.uniform(-spread, spread, 3) / 2
    return (red * gain + shift[0], green * gain + shift[1], blue * gain + shift[2])


def _grey(random: np.random.Generator, low: float, high: float) -> Colour:
    value, warm = random.uniform(low, high), random.uniform(-0.02, 0.03)
    return (value + warm, value, value - warm)


def _street(random: np.random.Generator) -> Street:
    lanes = int(random.integers(1, 4))
    road_m = 1.65 * lanes + random.uniform(0.6, 2.2)
    return Street(
        middle_m=random.uniform(-0.45, 0.45) * (road_m - 1.2),
        road_m=road_m,
        lanes=lanes,
        has_edge_lines=bool(random.random() < 0.5),
        dash_m=random.uniform(4, 9),
        surface=_grey(random, 0.30, 0.46),
        sidewalk_tint=random.normal(1.0, 0.08),
        verge_m=random.uniform(1, 3) if random.random() < 0.3 else 0.0,
        crossing_m=random.uniform(12, 45) if random.random() < 0.65 else 1e6,
        crossing_width_m=random.uniform(6, 11),
        has_zebra=bool(random.random() < 0.6),
        tile_m=random.uniform(0.5, 1.2) if random.random() < 0.4 else 0.0,
    )


def _light(random: np.random.Generator, left_m: float, right_m: float) -> Light:
    is_night = bool(random.random() < 0.15)
    warm = random.uniform(-0.06, 0.10)
    level = random.uniform(0.32, 0.55) if is_night else random.uniform(0.75, 1.15)
    grey = random.random()
    clear: Colour = (0.34, 0.55, 0.86)
    high = tuple((1 - grey) * c + grey * 0.72 for c in clear)
    side = random.uniform(0.55, 1.0)
    is_left_lit = random.random() < 0.5
    has_sun = not is_night and random.random() < 0.6
    reach_m = random.uniform(1.0, 7.0)
    return Light(
        is_night=is_night,
        ambient=(level * (1 + warm), level, level * (1 - warm)),
        sky_high=(0.10, 0.12, 0.22) if is_night else (high[0], high[1], high[2]),
        sky_low=(0.30, 0.26, 0.26) if is_night else (0.86, 0.88, 0.90),
        haze_per_m=random.uniform(0.001, 0.006) if random.random() < 0.8 else 0.015,
        cloud_share=random.uniform(0, 0.9),
        left_facade=1.0 if is_left_lit else side,
        right_facade=side if is_left_lit else 1.0,
        shadow_from_m=right_m - reach_m if is_left_lit else left_m - 30,
        shadow_to_m=right_m + 30 if is_left_lit else left_m + reach_m,
        shadow=random.uniform(0.45, 0.75) if has_sun else 1.0,
        noise_std=random.uniform(0.005, 0.03) * (1.6 if is_night else 1.0),
        is_blurred=bool(random.random() < 0.25),
    )


def _buildings(
    random: np.random.Generator, x_m: float, street: Street, end_m: float
) -> list[Building]:
    """Blocks of one side from near to far, with gaps and the side street left free."""
    blocks = []
    z_m = random.uniform(-4, 4)
    while z_m < end_m:
        far_m = z_m + random.uniform(8, 22)
        crossing_end_m = street.crossing_m + street.crossing_width_m + 2
        if z_m < street.crossing_m - 2 < far_m:
            far_m = street.crossing_m - 2
        if far_m > street.crossing_m and z_m < crossing_end_m:
            z_m = crossing_end_m
            continue
        if random.random() < 0.82:
            blocks.append(
                Building(
                    x_m=x_m,
                    near_m=max(z_m, 0.8),
                    far_m=far_m,
                    height_m=random.uniform(4, 9) if random.random() < 0.4
                    else random.uniform(9, 26),
                    depth_m=random.uniform(8, 16),
                    colour=_pick(random, FACADES),
                    panel=_pick(random, FACADES + SIGNALS),
                    window=_grey(random, 0.12, 0.34) if random.random() < 0.7
                    else (0.45, 0.55, 0.65),
                    bay_m=random.uniform(1.8, 4.0),
                    floor_m=random.uniform(2.7, 3.8),
                    window_share=random.uniform(0.35, 0.7),
                    has_shop=bool(random.random() < 0.5),
                )
            )  # fmt: skip
            z_m = far_m
        else:
            z_m += random.uniform(3, 14)
    return blocks


def _things(
    random: np.random.Generator, street: Street, left_m: float, right_m: float
) -> tuple[Thing, ...]:
    things: list[Thing] = []

    def add(
        kind: str, x_m: float, z_m: float, width_m: float, height_m: float,
        colour: Colour, accent: Colour = (0.2, 0.2, 0.2),
    ) -> None:  # fmt: skip
        things.append(
            Thing(kind, x_m, z_m, width_m, height_m, colour, accent, float(random.random()))
        )

    def far(near_m: float, far_m: float) -> float:
        """Even in 1 / z: as many far away as near, as seen in the image."""
        return float(1 / random.uniform(1 / far_m, 1 / near_m))

    def car(kind: str, x_m: float, z_m: float) -> None:
        is_van = random.random() < 0.2
        height_m = random.uniform(1.9, 2.6) if is_van else random.uniform(1.35, 1.7)
        add(kind, x_m, z_m, random.uniform(1.65, 1.95), height_m, _pick(random, PAINTS))

    curbs_m = {-1: street.middle_m - street.road_m, 1: street.middle_m + street.road_m}
    walls_m = {-1: left_m, 1: right_m}
    for side in (-1, 1):
        curb_m, wall_m = curbs_m[side], walls_m[side]

        def aside(low: float, high: float, curb_m: float = curb_m, wall_m: float = wall_m) -> float:
            return float(curb_m + (wall_m - curb_m) * random.uniform(low, high))

        if random.random() < 0.6:  # parked
            z_m = random.uniform(5, 14)
            while z_m < 70:
                is_free = street.crossing_m - 7 < z_m < street.crossing_m + 14
                if random.random() < 0.6 and not is_free:
                    car("car", curb_m - side * random.uniform(0.95, 1.2), z_m)
                z_m += random.uniform(5, 9)
        z_m, step_m = random.uniform(4, 16), random.uniform(12, 26)
        while z_m < 90:
            add("lamp", curb_m + side * 0.5, z_m, random.uniform(0.10, 0.18),
                random.uniform(5, 8.5), _grey(random, 0.18, 0.5))  # fmt: skip
            z_m += step_m
        for _ in range(random.integers(0, 5)):
            add("tree", aside(0.2, 0.9), far(6, 80), random.uniform(2.2, 5.0),
                random.uniform(4, 9), _pick(random, LEAVES), (0.25, 0.18, 0.12))  # fmt: skip
        for _ in range(random.integers(1, 5)):
            add("sign", aside(0.08, 0.3), far(5, 60), random.uniform(0.55, 0.95),
                random.uniform(2.2, 3.0), _pick(random, SIGNALS, 0.04),
                (0.92, 0.92, 0.92))  # fmt: skip
        if random.random() < 0.6:
            add("board", aside(0.35, 0.75), far(9, 50), random.uniform(1.6, 3.2),
                random.uniform(2.8, 4.5), _pick(random, FACADES),
                _pick(random, FACADES + SIGNALS))  # fmt: skip
        if street.crossing_m < 100 and random.random() < 0.7:
            add("traffic_light", curb_m + side * 0.5, street.crossing_m - 1, 0.34,
                random.uniform(2.8, 3.6), (0.12, 0.13, 0.12))  # fmt: skip
        for _ in range(random.integers(0, 8)):
            add("person", aside(0.1, 0.95), far(4.5, 45), 0.5, random.uniform(1.5, 1.9),
                _pick(random, PAINTS), _pick(random, SKINS, 0.04))  # fmt: skip
    for _ in range(random.integers(0, 4)):  # driving
        lane_m = random.uniform(-0.75, 0.75) * (street.road_m - 1.2)
        z_m = far(8, 80)
        if all(t.kind != "car" or abs(t.z_m - z_m) > 6 or
               abs(t.x_m - street.middle_m - lane_m) > 2.2 for t in things):  # fmt: skip
            car("car", street.middle_m + lane_m, z_m)
    if street.crossing_m < 100:
        for _ in range(random.integers(0, 3)):
            z_m = street.crossing_m + street.crossing_width_m * random.uniform(0.25, 0.75)
            car("crossing_car", random.uniform(-14, 14), z_m)
    for _ in range(random.integers(0, 3)):  # on the road
        z_m = street.crossing_m - 2.5 if street.crossing_m < 60 else far(8, 50)
        add("person", street.middle_m + random.uniform(-1, 1) * street.road_m, z_m, 0.5,
            random.uniform(1.1, 1.9), _pick(random, PAINTS),
            _pick(random, SKINS, 0.04))  # fmt: skip
    return tuple(sorted(things, key=lambda thing: -thing.z_m))
