"""The supernet: mixes what the paper's Eq. 1 says, and freezes to the network that it computed."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as functional
from freeze import freeze, one_hot
from plain_supernet import path_weight, plain_supernet
from torch import Tensor, nn

from latlut.errors import SpecError
from latlut.operators.modules import resize
from latlut.operators.network import Network
from latlut.search.supernet.mixing import Edges, Gates, Mixing
from latlut.search.supernet.relaxed import RelaxedArchitecture
from latlut.search.supernet.single_path import run_path
from latlut.search.supernet.supernet import Supernet, outputs_of
from latlut.search.supernet.widths import gumbel_widths
from latlut.spaces import Architecture, Branch, Cell, FasterSegSpace

SPACE = FasterSegSpace(layers=5, base_width=3, widths=(4, 6, 12), num_classes=4)
PLAIN_OPERATORS = ("conv", "conv_2x", "zoomed_conv", "zoomed_conv_2x")


def _net(space: FasterSegSpace = SPACE, **options: object) -> Supernet:
    """Norms and their statistics random, so that no two widths agree by chance."""
    net = Supernet(space, **options)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, nn.BatchNorm2d):
                for tensor in (part.weight, part.bias, part.running_mean, part.running_var):
                    tensor.uniform_(0.5, 1.5, generator=generator)
    return net


def _mixing(space: FasterSegSpace = SPACE, seed: int = 0, spread: float = 1.0) -> Mixing:
    relaxed = RelaxedArchitecture(space, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (relaxed.alpha, relaxed.beta):
            tensor.normal_(0, spread, generator=generator)
    found = relaxed.probabilities()
    return Mixing(found.alpha.detach(), found.beta.detach())


def _widths(space: FasterSegSpace = SPACE, seed: int = 0) -> list[int]:
    rng = random.Random(seed)
    return [rng.choice(space.widths) for _ in space.cells()[1:]]


def _image(height: int = 64, width: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("space", "end_width", "size"),
    [
        (SPACE, 8, (64, 64)),
        (SPACE, 12, (75, 101)),
        (replace(SPACE, layers=3), 8, (64, 96)),
        (replace(SPACE, operators=("zoomed_conv", "conv_2x", "skip")), 8, (72, 72)),
        (replace(SPACE, branches=1), 12, (64, 64)),
    ],
)
def test_optimisations_leave_results_and_gradients_unchanged(
    space: FasterSegSpace, end_width: int, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    net = _net(space).double()
    image, widths = _image(*size).double(), _widths(space)
    found, expected = [], []
    for results, run in ((found, net), (expected, lambda *a: plain_supernet(net, *a))):
        mixing = _mixing(space)
        alpha, beta = (part.double().requires_grad_() for part in mixing[:2])
        gates = torch.ones(len(widths), len(space.widths), dtype=torch.float64, requires_grad=True)
        gated = Gates(space.widths, gates)
        outputs = run(image, Mixing(alpha, beta), widths, end_width, gated)
        net.zero_grad()
        sum((logits.sin() * (i + 1)).mean() for i, logits in enumerate(outputs.values())).backward()
        two_way = list(RelaxedArchitecture(space).two_way)  # other rows of beta are constants
        results += [*outputs.values(), alpha.grad, beta.grad[two_way], gates.grad]
        results += [None if p.grad is None else p.grad.clone() for p in net.parameters()]
    assert list(net.outputs) == list(outputs)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            # Norms over a few values amplify rounding, which differs by processor: an image changed
            # by 1e-15 moves gradients of the plain arrangement, up to 50, by 1e-6.
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_without_gradients_of_the_mixing_the_results_are_the_same() -> None:
    net, mixing, widths = _net(), _mixing(), _widths()
    fixed = net(_image(), mixing, widths, 8)
    alpha, beta = (part.clone().requires_grad_() for part in mixing[:2])
    gates = torch.ones(len(widths), len(SPACE.widths), requires_grad=True)
    free = net(_image(), Mixing(alpha, beta), widths, 8, Gates(SPACE.widths, gates))
    for output, logits in fixed.items():
        torch.testing.assert_close(logits, free[output], rtol=1e-4, atol=1e-5)


def test_gradients_of_alpha_beta_and_gates_are_finite_differences() -> None:
    space = replace(SPACE, layers=4)
    net = _net(space, outputs=[(8, 32), (16, 32)]).double().eval()
    image, widths = _image(32, 32).double(), _widths(space)
    ones = torch.ones(len(widths), len(space.widths)).double()
    point = [*(part.double() for part in _mixing(space)[:2]), ones]
    for part in point:
        part.requires_grad_()

    def loss(alpha: Tensor, beta: Tensor, gates: Tensor) -> Tensor:
        outputs = net(image, Mixing(alpha, beta), widths, 8, Gates(space.widths, gates))
        return sum(logits.tanh().square().mean() for logits in outputs.values())

    slopes = torch.autograd.grad(loss(*point), point)
    generator = torch.Generator().manual_seed(5)
    for index, slope in enumerate(slopes):
        direction = torch.randn(slope.shape, generator=generator, dtype=torch.float64)
        ends = []
        for step in (1e-6, -1e-6):
            moved = [part.detach() for part in point]
            moved[index] = moved[index] + step * direction
            with torch.no_grad():
                ends.append(loss(*moved))
        measured = float(ends[0] - ends[1]) / 2e-6
        assert measured == pytest.approx(float((slope * direction).sum()), rel=1e-3, abs=1e-9)
        assert abs(measured) > 1e-6


def _architectures(space: FasterSegSpace, count: int) -> list[Architecture]:
    """Networks that a one-hot supernet can hold, drawn at random; all end widths of the space."""
    found, seed = [], 0
    while len(found) < count:
        architecture = space.sample(seed)
        seed += 1
        try:
            one_hot(space, architecture)
        except SpecError:
            continue
        found.append(architecture)
    return found


@pytest.mark.parametrize("branches", [1, 2])
@pytest.mark.parametrize("size", [(64, 64), (75, 101)])
def test_a_frozen_network_computes_what_the_supernet_did(
    branches: int, size: tuple[int, int]
) -> None:
    space = replace(SPACE, branches=branches, operators=PLAIN_OPERATORS)
    every = ((8,), (16,), (32,)) if branches == 1 else ((8, 16), (8, 32), (16, 32))
    net = _net(replace(space, operators=("skip", *PLAIN_OPERATORS)), outputs=every).eval()
    image, seen = _image(*size), set()
    for architecture in _architectures(space, 12):
        end = architecture.head_width
        output = tuple(branch.scale for branch in architecture.branches)
        mixing, widths = one_hot(net.space, architecture)
        with torch.no_grad():
            network = freeze(net, architecture, end, size)
            found = network(image)
            logits = net(image, mixing, widths, end, outputs=[output])
            expected = resize(logits[output], size, "bilinear")
        assert isinstance(network, Network) and not network.training
        assert list(logits) == [output]
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
        assert found.std() > 1e-3
        seen |= {output, end}
    assert seen == {*every, 8, 12}  # every head was compared


def test_one_hot_weights_computed_with_or_without_the_rest() -> None:
    """Weights that want a gradient keep every operator; the zeros must then change nothing."""
    space = replace(SPACE, operators=PLAIN_OPERATORS)
    net = _net(space).eval()
    architecture = next(a for a in _architectures(space, 30) if a.branches[0].scale == 16)
    mixing, widths = one_hot(space, architecture)
    calls = []
    for cell in net.super_cells:
        cell.keep.register_forward_hook(lambda *_: calls.append(1))
    short = net(_image(), mixing, widths, architecture.head_width, outputs=[(16, 32)])
    run_cells = len(calls)
    free = Mixing(*(part.requires_grad_() for part in mixing[:2]))
    full = net(_image(), free, widths, architecture.head_width, outputs=[(16, 32)])
    assert run_cells < len(calls) - run_cells
    torch.testing.assert_close(short[16, 32], full[16, 32], rtol=1e-4, atol=1e-4)


def test_freeze_with_cells_left_out_reads_the_layers_that_are_named() -> None:
    cells = (Cell("conv", 6), Cell("conv_2x", 4, is_down=True), Cell("zoomed_conv", 8))
    architecture = Architecture(8, 8, (Branch(16, cells),), 3, 4)
    net = _net(replace(SPACE, branches=1)).eval()
    with pytest.raises(SpecError, match="say with layers="):
        freeze(net, architecture, 8, (64, 64))
    network = freeze(net, architecture, 8, (64, 64), layers={16: (0, 2, 4)})
    rows = {cell: row for row, cell in enumerate(net.cells)}
    by_name = dict(zip((n.name for n in network.nodes), network.operators, strict=True))
    down = net.super_cells[rows[2, 8]].down.direct.first.conv
    assert torch.equal(by_name["branch16.cell.1"][0].conv.weight, down.sliced(16, 12, only=1))
    last = net.super_cells[rows[4, 16]].keep.zoomed.first.conv
    weight = by_name["branch16.cell.2"].convolutions[0].conv.weight
    assert torch.equal(weight, last.sliced(32, 16, only=0))
    assert network(_image()).shape == (2, 4, 64, 64)
    with pytest.raises(SpecError, match="increasing layers below 5"):
        freeze(net, architecture, 8, (64, 64), layers={16: (0, 0, 9)})
    few = _net(replace(SPACE, branches=1, operators=("conv", "zoomed_conv")))
    with pytest.raises(SpecError, match="received conv_2x"):
        freeze(few, architecture, 8, (64, 64), layers={16: (0, 2, 4)})


def test_freezing_leaves_the_supernet_alone() -> None:
    space = replace(SPACE, operators=PLAIN_OPERATORS)
    net = _net(space)
    architecture = next(a for a in _architectures(space, 30) if a.branches[1].scale == 32)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    network = freeze(net, architecture, architecture.head_width, (64, 64))
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_branches_that_no_one_hot_supernet_holds() -> None:
    last = Cell("conv", 8)
    down, keep = Cell("conv", 4, is_down=True), Cell("conv", 4)
    first = Branch(16, (keep, keep, down, keep, last))
    for second, words in (
        ((Cell("conv_2x", 4), down, down, keep, last), "conv and conv_2x as the operator"),
        ((Cell("conv", 6), down, down, keep, last), "4 and 6 as the width"),
        ((keep, down, keep, down, last), "finer and same scale as the source"),
    ):
        architecture = Architecture(8, 8, (first, Branch(32, second)), 3, 4)
        with pytest.raises(SpecError, match=words):
            one_hot(SPACE, architecture)


@pytest.mark.parametrize("branch", [16, 32])
def test_finer_maps_are_weighed_by_every_path_of_the_branch(branch: int) -> None:
    space = replace(SPACE, layers=7)
    edges, beta = Edges(space), _mixing(space, seed=4).beta
    rows = {cell: row for row, cell in enumerate(space.cells())}

    def beta_of(layer: int, scale: int) -> Tensor:
        return beta[rows[layer, scale]]

    beta_of.layers = space.layers
    expected: dict[tuple[int, int], float] = {}
    for downs in space.positions(branch):
        weight = float(path_weight(downs, branch, beta_of))
        for scale, down in zip((8, 16), downs, strict=False):
            row = rows[down, scale]
            expected[scale, row] = expected.get((scale, row), 0.0) + weight
    found = {
        (scale, row): float(weight)
        for scale, pairs in edges.down_weights(beta, branch).items()
        for row, weight in pairs
    }
    assert found == pytest.approx(expected)
    for scale in (8, 16)[: len(space.positions(branch)[0])]:
        assert sum(v for (s, _), v in found.items() if s == scale) == pytest.approx(1)


def test_forward_mutates_no_choice() -> None:
    """A pass at other widths in between changes nothing."""
    net = _net().eval()
    mixing, wide, narrow = _mixing(), _widths(seed=1), [4] * len(_widths())
    with torch.no_grad():
        first = net(_image(), mixing, wide, 8)
        net(_image(), mixing, narrow, 12)
        again = net(_image(), mixing, wide, 8)
    assert all(torch.equal(first[output], again[output]) for output in first)


@pytest.mark.parametrize("is_channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_precisions_and_memory_formats_agree(dtype: torch.dtype, is_channels_last: bool) -> None:
    net, widths = _net().eval(), _widths()  # batch statistics of tiny maps would amplify rounding
    image = _image()
    expected = {o: logits.detach() for o, logits in net(image, _mixing(), widths, 8).items()}
    if is_channels_last:
        net = net.to(memory_format=torch.channels_last)
        image = image.to(memory_format=torch.channels_last)
    alpha, beta = (part.clone().requires_grad_() for part in _mixing()[:2])
    gates = torch.ones(len(widths), len(SPACE.widths), requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        outputs = net(image, Mixing(alpha, beta), widths, 8, Gates(SPACE.widths, gates))
    sum(logits.float().square().mean() for logits in outputs.values()).backward()
    for output, logits in outputs.items():
        found, wanted = logits.float().flatten(), expected[output].flatten()
        assert functional.cosine_similarity(found, wanted, dim=0) > 0.99
    for tensor in (alpha.grad, beta.grad, gates.grad):
        assert tensor.dtype == torch.float32 and tensor.isfinite().all() and tensor.any()


def test_gamma_hears_of_accuracy_in_every_map() -> None:
    """A gate of a whole map is a scale that the norms behind it take out again."""
    space = replace(SPACE, layers=4)
    net, relaxed = _net(space).train(), RelaxedArchitecture(space)
    widest = gumbel_widths(relaxed, torch.Generator())._replace(values=(12,) * 8)
    outputs = net(_image(), _mixing(space), widest.values, 8, widest.gates)
    sum(logits.square().mean() for logits in outputs.values()).backward()
    assert relaxed.gamma.grad is not None
    size = relaxed.gamma.grad.norm(dim=1)
    assert size.min() > 1e-3 * size.max()


def test_a_single_path_computes_what_the_one_hot_supernet_does() -> None:
    net = _net().eval()
    for architecture in _architectures(SPACE, 4):
        output = tuple(branch.scale for branch in architecture.branches)
        mixing, widths = one_hot(SPACE, architecture)
        layers = (tuple(range(SPACE.layers)),) * len(output)
        with torch.no_grad():
            expected = net(_image(), mixing, widths, architecture.head_width, outputs=[output])
            found = run_path(net, _image(), architecture, layers)
        torch.testing.assert_close(found, expected[output], rtol=1e-4, atol=1e-5)
    with pytest.raises(SpecError, match="a layer for each cell"):
        run_path(net, _image(), architecture, ((0,),) * len(output))


def test_passes_add_to_one_gradient() -> None:
    """No second copy of the gradients, whatever the widths of the passes."""
    net = _net()
    places = []
    for width in (12, 4, 12):
        logits = net(_image(), _mixing(), [width] * len(_widths()), 12)
        sum(part.square().mean() for part in logits.values()).backward()
        kernel = net.super_cells[0].keep.direct.first.conv.weight
        assert kernel.grad is not None
        places.append(kernel.grad.data_ptr())
    assert len(set(places)) == 1


def test_every_pair_of_branches_has_a_head() -> None:
    assert outputs_of(SPACE) == ((8,), (16,), (32,), (8, 16), (8, 32), (16, 32))


def test_every_weight_of_the_widest_pass_gets_a_gradient() -> None:
    net = _net()
    widest = [12] * len(_widths())
    outputs = net(_image(), _mixing(), widest, 12)
    sum(logits.square().mean() for logits in outputs.values()).backward()
    missing = {name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()}
    assert missing and all(
        name.startswith("ends.8.") or ".norm.norms." in name for name in missing
    ), sorted(missing)[:10]


def test_weights_are_seeded_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(7)
    state = torch.get_rng_state()
    one, same, other = Supernet(SPACE, seed=3), Supernet(SPACE, seed=3), Supernet(SPACE, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    first, second, third = (dict(net.named_parameters()) for net in (one, same, other))
    assert all(torch.equal(first[name], second[name]) for name in first)
    differing = {name for name in first if not torch.equal(first[name], third[name])}
    assert {name for name in first if ".norm" not in name} == differing


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"end_width": 6}, r"end widths \(12, 8\), received 6"),
        ({"widths": [4] * 3}, "expected 11 widths, received 3"),
        ({"widths": [5] * 11}, r"widths \(4, 6, 12\), received 5"),
        ({"mixing": Mixing(torch.ones(3, 5), torch.ones(12))}, r"alpha must have shape \(12, 5\)"),
        ({"mixing": Mixing(torch.ones(12, 5), torch.ones(3))}, r"beta must have shape \(12,\)"),
        (
            {"gates": Gates((4, 6, 12), torch.ones(12, 3))},
            r"gates must have shape \(11, 3\), received \(12, 3\)",
        ),
        ({"outputs": [(8, 12)]}, r"received \(8, 12\)"),
    ],
)
def test_what_does_not_belong_to_the_supernet(change: dict[str, object], words: str) -> None:
    call = {"mixing": _mixing(), "widths": [4] * 11, "end_width": 8} | change
    with pytest.raises(SpecError, match=words):
        _net()(_image(), **call)


def test_impossible_supernets_and_freezes() -> None:
    with pytest.raises(SpecError, match="received 6"):
        Supernet(SPACE, end_widths=(6,))
    with pytest.raises(SpecError, match=r"increasing choice .* received \(32, 8\)"):
        Supernet(SPACE, outputs=[(32, 8)])
    space = replace(SPACE, operators=PLAIN_OPERATORS, stem_head_widths=(8,))
    architecture = _architectures(space, 1)[0]
    net = Supernet(SPACE, end_widths=(12, 8))
    with pytest.raises(SpecError, match="stem width is 8, expected 12"):
        freeze(net, architecture, 12)
    with pytest.raises(SpecError, match="number of classes is 9, expected 4"):
        freeze(net, replace(architecture, num_classes=9), 8)
