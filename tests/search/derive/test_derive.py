"""Deriving: positions by brute force over beta, rules for skips, ties, published networks."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from relaxed_networks import relaxed_from

from latlut.errors import SpecError
from latlut.resources import profiles_dir
from latlut.search.derive.choices import choices_of, least_gap, minimum_depth
from latlut.search.derive.derive import (
    DECODINGS,
    Candidate,
    best_positions,
    compared_positions,
    derive,
    path_log_probability,
    select,
    target_score,
)
from latlut.search.supernet.relaxed import RelaxedArchitecture
from latlut.spaces import Architecture, FasterSegSpace
from latlut.spaces.architecture import OPERATORS
from latlut.spaces.topology import path_places


def published(name: str) -> Architecture:
    return Architecture.load(profiles_dir() / "architectures" / f"fasterseg-{name}.json")


def random_relaxed(
    space: FasterSegSpace, seed: int, skip_bonus: float = 0.0, has_ties: bool = False
) -> RelaxedArchitecture:
    """Logits drawn from a normal distribution, skip's raised, on request rounded to halves."""
    relaxed = RelaxedArchitecture(space, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for logits in relaxed.parameters():
            logits.copy_(torch.randn(logits.shape, generator=generator))
        if "skip" in space.operators:
            relaxed.alpha[:, space.operators.index("skip")] += skip_bonus
        if has_ties:
            for logits in relaxed.parameters():
                logits.copy_((logits * 2).round() / 2)
    return relaxed


def set_logits(
    relaxed: RelaxedArchitecture, name: str, place: tuple[int, int], value: list
) -> None:
    """Set a row of alpha, beta or gamma by its cell."""
    row = relaxed.space.cells().index(place)
    if name == "gamma":
        row -= 1
    if name == "beta":
        row = relaxed.two_way.index(row)
    with torch.no_grad():
        getattr(relaxed, name)[row] = torch.tensor(value)


def zeroed(relaxed: RelaxedArchitecture) -> RelaxedArchitecture:
    with torch.no_grad():
        for logits in relaxed.parameters():
            logits.zero_()
    return relaxed


def downs_of(architecture: Architecture) -> list[list[int]]:
    return [[i for i, c in enumerate(b.cells) if c.is_down] for b in architecture.branches]


# --- positions ---


def traced_paths(relaxed: RelaxedArchitecture, scale: int) -> dict[tuple[int, ...], float]:
    """P(path) by deciding every cell's input in every possible way and walking back."""
    space = relaxed.space
    cells = space.cells()
    finer = relaxed.probabilities().beta.double().tolist()
    open_cells = [cells[row] for row in relaxed.two_way]
    found: dict[tuple[int, ...], float] = {}
    for inputs in product((True, False), repeat=len(open_cells)):
        from_finer = dict(zip(open_cells, inputs, strict=True))
        weight = math.prod(
            finer[cells.index(cell)] if is_finer else 1 - finer[cells.index(cell)]
            for cell, is_finer in from_finer.items()
        )
        layer, here, downs = space.layers - 1, scale, []
        while layer > 0:
            if here > 8 and from_finer.get((layer, here), True):
                here //= 2
                downs.append(layer - 1)
            layer -= 1
        path = tuple(reversed(downs))
        found[path] = found.get(path, 0.0) + weight
    return found


@pytest.mark.parametrize("layers", [3, 4, 5, 6])
@pytest.mark.parametrize("scale", [8, 16, 32])
def test_path_probability_is_that_of_walking_back(layers: int, scale: int) -> None:
    relaxed = random_relaxed(FasterSegSpace(layers=layers), seed=layers)
    choices = choices_of(relaxed)
    traced = traced_paths(relaxed, scale)
    assert sorted(traced) == sorted(relaxed.space.positions(scale))
    for downs, probability in traced.items():
        assert math.exp(path_log_probability(choices, downs)) == pytest.approx(probability)


@given(st.integers(0, 10_000), st.integers(3, 9))
@settings(max_examples=50, deadline=None)
def test_positions_are_the_most_probable_far_enough_apart(seed: int, layers: int) -> None:
    relaxed = random_relaxed(FasterSegSpace(layers=layers), seed)
    choices = choices_of(relaxed)
    beta = dict(zip(relaxed.space.cells(), relaxed.probabilities().beta.tolist(), strict=True))
    for scale in (16, 32):
        chosen = best_positions(choices, scale, "path")
        gap = least_gap(layers)
        rivals = [p for p in relaxed.space.positions(scale) if p[-1] - p[0] >= gap or scale == 16]
        assert chosen in rivals
        best = max(path_log_probability(choices, downs) for downs in rivals)
        assert path_log_probability(choices, chosen) == pytest.approx(best)

    def by_rows(downs: tuple[int, ...]) -> float:
        return math.prod(beta[d + 1, 16 * 2**i] for i, d in enumerate(downs))

    one = range(1, layers - 1)
    assert best_positions(choices, 16, "corrected") == (max(one, key=lambda d: by_rows((d,))),)
    if layers >= 6:
        two = [(a, b) for a in one for b in range(max(2, a + least_gap(layers)), layers - 1)]
        assert best_positions(choices, 32, "corrected") == max(two, key=by_rows)


def test_small_spaces_keep_most_of_their_positions_and_can_drop_skips() -> None:
    """The gap and the depth of 16 layers, in proportion."""
    assert [least_gap(layers) for layers in (3, 6, 8, 12, 16, 32)] == [1, 1, 2, 2, 3, 6]
    assert [[minimum_depth(layers, s) for s in (8, 16, 32)] for layers in (3, 6, 12, 16)] == [
        [1, 2, 3], [2, 3, 4], [4, 6, 7], [5, 7, 9],
    ]  # fmt: skip
    assert len(compared_positions(FasterSegSpace(layers=6), 32)) == 6
    assert len(compared_positions(FasterSegSpace(layers=16), 32)) == 66
    # "corrected" leaves out cells without a choice, where others are left
    for layers, downs in ((3, (0, 1)), (4, (1, 2)), (6, (1, 2))):
        relaxed = zeroed(RelaxedArchitecture(FasterSegSpace(layers=layers)))
        assert best_positions(choices_of(relaxed), 32, "corrected") == downs


def test_uniform_beta_goes_down_late_along_the_path() -> None:
    """Of independent fair choices the first one from the end is the likeliest to be taken."""
    choices = choices_of(zeroed(RelaxedArchitecture(FasterSegSpace())))
    assert best_positions(choices, 16, "path") == (14,)
    assert best_positions(choices, 32, "path") == (11, 14)


def test_released_goes_down_one_layer_before_the_beta_it_looked_at() -> None:
    relaxed = zeroed(RelaxedArchitecture(FasterSegSpace()))
    with torch.no_grad():
        relaxed.beta[:, 0] = -3
    set_logits(relaxed, "beta", (9, 16), [3.0, 0.0])
    set_logits(relaxed, "beta", (13, 32), [3.0, 0.0])
    expected = {"path": [8], "corrected": [8], "released": [7]}
    for decoding, downs in expected.items():
        network = derive(relaxed, (16, 32), decoding, allow_skip=False)
        assert downs_of(network) == [downs, [8, 12]]


def test_released_needs_five_layers() -> None:
    relaxed = RelaxedArchitecture(FasterSegSpace(layers=4))
    with pytest.raises(SpecError, match="5 layers, received 4"):
        derive(relaxed, (8, 16), "released")
    assert derive(RelaxedArchitecture(FasterSegSpace(layers=5)), (8, 16), "released")


# --- operators, widths and skips ---


def test_operators_and_widths_are_the_largest_logits() -> None:
    space = FasterSegSpace(layers=3, branches=1)
    relaxed = zeroed(RelaxedArchitecture(space, end_width=8))
    with torch.no_grad():
        relaxed.alpha[:, OPERATORS.index("conv")] = 1
        relaxed.gamma[:, 1] = 1  # 6/12
    set_logits(relaxed, "alpha", (0, 8), [0.0, 0, 5, 0, 0])
    set_logits(relaxed, "alpha", (1, 8), [9.0, 0, 0, 5, 0])  # a down cell's skip: the next best
    set_logits(relaxed, "alpha", (2, 16), [9.0, 0, 0, 0, 5])  # the last cell stays, too
    set_logits(relaxed, "gamma", (1, 8), [0.0, 0, 0, 0, 5])
    set_logits(relaxed, "gamma", (2, 16), [0.0, 0, 0, 5, 0])
    set_logits(relaxed, "beta", (2, 16), [5.0, 0.0])
    (branch,) = derive(relaxed, (16,)).branches
    assert [(c.operator, c.width, c.is_down) for c in branch.cells] == [
        ("conv_2x", 12, False),
        ("zoomed_conv", 10, True),
        ("zoomed_conv_2x", 8, False),
    ]


def test_weakest_skips_stay_down_to_the_minimum_depth() -> None:
    space = FasterSegSpace(layers=9, branches=1)
    relaxed = zeroed(RelaxedArchitecture(space))
    for layer in range(9):
        set_logits(relaxed, "alpha", (layer, 8), [1.0 + layer, 0.5, 0, 0, 0])
    # round(9 / 3) = 3 cells: the last one and the two of lowest alpha
    network = derive(relaxed, (8,))
    assert len(network.branches[0].cells) == 3
    set_logits(relaxed, "gamma", (1, 8), [0.0, 1, 0, 0, 0])
    set_logits(relaxed, "gamma", (2, 8), [0.0, 0, 1, 0, 0])
    set_logits(relaxed, "gamma", (3, 8), [0.0, 0, 0, 0, 1])
    # each has the width of the map behind it, also where the next cell dropped out
    assert [c.width for c in derive(relaxed, (8,)).branches[0].cells] == [6, 8, 8]
    assert {c.operator for c in network.branches[0].cells} == {"conv"}
    set_logits(relaxed, "alpha", (4, 8), [0.0, 0, 1, 0, 0])  # no skip: counts, and one skip less
    kept = derive(relaxed, (8,)).branches[0].cells
    assert [c.operator for c in kept] == ["conv", "conv_2x", "conv"]


def test_equal_skips_drop_from_the_front() -> None:
    space = FasterSegSpace(layers=9, branches=1)
    relaxed = zeroed(RelaxedArchitecture(space))  # everything equal: skip is the first operator
    set_logits(relaxed, "gamma", (7, 8), [0.0, 0, 0, 0, 1])
    set_logits(relaxed, "gamma", (8, 8), [0.0, 0, 0, 1, 0])
    cells = derive(relaxed, (8,)).branches[0].cells
    assert [(c.operator, c.width) for c in cells] == [("conv", 12), ("conv", 10), ("conv", 8)]


def test_a_stretch_before_a_downsampling_keeps_its_weakest_skip() -> None:
    space = FasterSegSpace(layers=12, branches=1)
    relaxed = zeroed(RelaxedArchitecture(space))
    with torch.no_grad():
        relaxed.alpha[:, OPERATORS.index("conv")] = 1
        relaxed.beta[:, 0] = -5
    set_logits(relaxed, "beta", (5, 16), [5.0, 0.0])
    set_logits(relaxed, "beta", (9, 32), [9.0, 0.0])
    for layer, strength in ((5, 7.0), (6, 6.0), (7, 8.0)):
        set_logits(relaxed, "alpha", (layer, 16), [strength, 0, 0, 5, 0])
    (branch,) = derive(relaxed, (32,)).branches
    assert [c.operator for c in branch.cells] == ["conv"] * 5 + ["zoomed_conv"] + ["conv"] * 4
    assert downs_of(derive(relaxed, (32,))) == [[4, 6]]


def test_branches_agree_on_what_they_walk_together() -> None:
    """A skip that the deeper branch has to keep stays in the other one and is shared."""
    space = FasterSegSpace(layers=16)
    relaxed = zeroed(RelaxedArchitecture(space))
    with torch.no_grad():
        relaxed.alpha[:, 0] = 1
        relaxed.beta[:, 0] = -5
    set_logits(relaxed, "beta", (13, 16), [5.0, 0.0])
    set_logits(relaxed, "beta", (8, 16), [4.0, 0.0])
    set_logits(relaxed, "beta", (13, 32), [9.0, 0.0])
    network = derive(relaxed, (16, 32))
    fine, coarse = network.branches
    alone = FasterSegSpace(layers=16, branches=1)
    single = RelaxedArchitecture(alone)
    single.load_state_dict(relaxed.state_dict())
    depths = [len(derive(single, (scale,)).branches[0].cells) for scale in (16, 32)]
    assert depths == [minimum_depth(16, 16), minimum_depth(16, 32)] == [7, 9]
    together = min(downs_of(network)[0][0], downs_of(network)[1][0])
    assert network.shared_cells == together > 0
    assert len(fine.cells) >= 7 and len(coarse.cells) >= 9


spaces = st.builds(
    FasterSegSpace,
    layers=st.integers(3, 16),
    branches=st.integers(1, 2),
    operators=st.sampled_from(
        [OPERATORS, ("skip", "conv"), ("conv", "skip", "zoomed_conv"), ("conv", "conv_2x")]
    ),
)


@given(spaces, st.integers(0, 10_000), st.sampled_from([0.0, 1.0, 4.0]), st.booleans())
@settings(max_examples=150, deadline=None)
@pytest.mark.parametrize("decoding", DECODINGS)
def test_every_derived_network_obeys_the_rules(
    decoding: str, space: FasterSegSpace, seed: int, skip_bonus: float, has_ties: bool
) -> None:
    assume(decoding != "released" or space.layers >= 6)
    relaxed = random_relaxed(space, seed, skip_bonus, has_ties)
    before = {name: value.clone() for name, value in relaxed.state_dict().items()}
    for scales in space.branch_scales():
        network = derive(relaxed, scales, decoding)
        assert tuple(branch.scale for branch in network.branches) == scales
        assert (network.stem_width, network.head_width) == (8, 8)
        for branch, downs in zip(network.branches, downs_of(network), strict=True):
            assert minimum_depth(space.layers, branch.scale) <= len(branch.cells) <= space.layers
            assert all(cell.operator in space.candidates for cell in branch.cells)
            assert all(cell.width in space.widths for cell in branch.cells[:-1])
            if decoding != "released" and len(downs) == 2 and space.layers >= 8:
                assert downs[1] - downs[0] >= 2, "two layers apart, at most all but one dropped"
        teacher = derive(relaxed, scales[::-1], decoding, allow_skip=False)
        assert all(len(branch.cells) == space.layers for branch in teacher.branches)
    assert all(torch.equal(before[k], v) for k, v in relaxed.state_dict().items())


@given(st.integers(0, 10_000), st.integers(4, 12), st.sampled_from([8, 16, 32]))
@settings(max_examples=60, deadline=None)
def test_dropped_skips_are_the_strongest(seed: int, layers: int, scale: int) -> None:
    """Against a search over all sets of skips that may drop out."""
    space = FasterSegSpace(layers=layers, branches=1, operators=("skip", "conv"), widths=(4, 6))
    relaxed = random_relaxed(space, seed, skip_bonus=1.0)
    choices = choices_of(relaxed)
    downs = best_positions(choices, scale, "corrected")
    path = path_places(layers, downs)
    # alpha of a skip that is larger than that of conv, per layer
    skip = {
        layer: choices.skip_probability(place)
        for layer, place in enumerate(path)
        if layer not in downs and layer < layers - 1 and choices.skip_probability(place) > 0.5
    }
    stretches = [
        range(start, stop)
        for start, stop in zip((0, *(d + 1 for d in downs)), downs, strict=False)
        if start < stop
    ]
    legal = [
        chosen
        for flags in product((0, 1), repeat=len(skip))
        if (chosen := {layer for layer, flag in zip(skip, flags, strict=True) if flag}) is not None
        and layers - len(chosen) >= minimum_depth(layers, scale)
        and not any(chosen.issuperset(stretch) for stretch in stretches)
    ]
    # As many as may drop; of these sets the one whose members have the largest product.
    most = max(map(len, legal))
    best = max(
        (chosen for chosen in legal if len(chosen) == most),
        key=lambda chosen: sum(skip[layer] for layer in chosen),
    )
    assert len(derive(relaxed, (scale,)).branches[0].cells) == layers - most
    kept = [layer for layer in range(layers) if layer not in best]
    expected = choices.branch_cells(downs, dict.fromkeys(kept, "conv"))
    assert derive(relaxed, (scale,)).branches[0].cells == expected


# --- the way back, and the published networks ---


@pytest.mark.parametrize("decoding", DECODINGS)
def test_the_published_student_comes_back(decoding: str) -> None:
    student = published("student")
    relaxed = relaxed_from(student, FasterSegSpace(), decoding=decoding)
    assert derive(relaxed, (16, 32), decoding) == student


@pytest.mark.parametrize("name", ["teacher", "teacher-pruned"])
def test_the_published_teachers_come_only_from_the_off_by_one(name: str) -> None:
    """Their branches go down at layers 4 and 5, both from one row of beta."""
    teacher = published(name)
    relaxed = relaxed_from(teacher, FasterSegSpace(), decoding="released", allow_skip=False)
    assert derive(relaxed, (16, 32), "released", allow_skip=False) == teacher
    assert downs_of(derive(relaxed, (16, 32), "corrected", allow_skip=False)) == [[5], [5, 13]]
    for decoding in ("corrected", "path"):
        with pytest.raises(SpecError, match="no logits of 16 layers"):
            relaxed_from(teacher, FasterSegSpace(), decoding=decoding, allow_skip=False)


@given(st.integers(0, 10_000), st.integers(4, 8), st.sampled_from(["corrected", "path"]))
@settings(max_examples=25, deadline=None)
def test_logits_of_a_derived_network_give_it_back(seed: int, layers: int, decoding: str) -> None:
    space = FasterSegSpace(layers=layers)
    relaxed = random_relaxed(space, seed)
    network = derive(relaxed, (16, 32), decoding, allow_skip=False)
    again = relaxed_from(network, space, decoding=decoding, allow_skip=False)
    assert derive(again, (16, 32), decoding, allow_skip=False) == network


def test_networks_of_other_spaces_have_no_logits_here() -> None:
    student = published("student")
    for space, message in (
        (FasterSegSpace(base_width=24), "base_width"),
        (FasterSegSpace(num_classes=11), "num_classes"),
        (FasterSegSpace(layers=8), "9 cells, the space 8 layers"),
        (FasterSegSpace(widths=(4, 6)), "widths"),
        (FasterSegSpace(operators=("skip", "conv")), "operator"),
    ):
        with pytest.raises(SpecError, match=message):
            relaxed_from(student, space)


# --- refusals and scores ---


def test_what_makes_no_sense_is_refused() -> None:
    relaxed = RelaxedArchitecture(FasterSegSpace(layers=5))
    with pytest.raises(SpecError, match=r"\(8, 16\).*received \(16,\)"):
        derive(relaxed, (16,))
    with pytest.raises(SpecError, match="received 'corect'"):
        derive(relaxed, (8, 16), "corect")  # type: ignore[arg-type]
    set_logits(relaxed, "alpha", (3, 16), [0.0, math.nan, 0, 0, 0])
    with pytest.raises(SpecError, match="alpha of the cell at layer 3, 1/16"):
        derive(relaxed, (8, 16))


def test_target_score_by_hand() -> None:
    assert target_score(0.7, 8.3, 8.3) == pytest.approx(0.7)
    assert target_score(0.7, 16.6, 8.3) == pytest.approx(0.7 * 2**-0.07)
    assert target_score(0.7, 4.15, 8.3) == pytest.approx(0.7 * 2**0.07)
    assert target_score(70, 10, 5, exponent=-1) == pytest.approx(35)
    for values in ((-0.1, 1, 1), (math.nan, 1, 1), (0.5, 0, 1), (0.5, 1, -1), (0.5, math.inf, 1)):
        with pytest.raises(SpecError):
            target_score(*values)


def test_select_takes_the_first_of_the_best() -> None:
    student, teacher = published("student"), published("teacher")
    slow = Candidate(teacher, 0.72, 20.0)
    fast = Candidate(student, 0.70, 8.0)
    assert select([slow, fast], 8.3) is fast
    assert select([slow, fast], 8.3, exponent=0) is slow
    twin = Candidate(teacher, 0.70, 8.0)
    assert select([twin, fast], 8.3) is twin
    with pytest.raises(SpecError, match="no candidate"):
        select([], 8.3)
