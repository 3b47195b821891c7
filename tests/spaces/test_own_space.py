"""A space of one's own: what is wrong with it is said first; the documented one, end to end."""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from checkout import ROOT
from click.testing import CliRunner
from small_tables import make_table

from latlut.cli import main
from latlut.errors import LatlutError, MissingEntryError, SpecError
from latlut.operators import own_modules
from latlut.opspec import OpSpec
from latlut.penalty import ChoiceLatency, ExpectedLatency
from latlut.pricing.choices import PricedChoices, PricedParts
from latlut.spaces import space as spaces
from latlut.spaces.checking import check_space
from latlut.spaces.choices import Choice, Choices, Part
from latlut.spaces.fasterseg import FasterSegSpace
from latlut.spaces.own import own_space

EXAMPLES = ROOT / "docs" / "examples"
CHAIN = (EXAMPLES / "chain_space.py").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def forgets_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spaces, "_SPACES", dict(spaces._SPACES))
    monkeypatch.setattr(own_modules, "_IMPORTED", {})


def _changed(tmp_path: Path, *edits: tuple[str, str]) -> Path:
    """The documented space with other lines, as a file."""
    text = CHAIN
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / f"space_{abs(hash(edits))}.py"
    path.write_text(text)
    return path


def test_the_documented_space_and_fasterseg_s_are_sound() -> None:
    space = own_space(str(EXAMPLES / "chain_space.py"))
    specs = check_space(space, (64, 64), 2)
    assert len(specs) == 89
    assert set(specs) == set(space.op_specs((64, 64), 2))
    check_space(FasterSegSpace(layers=5, widths=(4,), stem_head_widths=(4,)), (64, 96))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("def sample_many", "def samples", "lacks sample_many"),
        ('name: ClassVar[str] = "chain"', "name: ClassVar[int] = 3", "lacks name"),
        ("@register_space\n", "", "registers one space.*found none"),
        ("classes: int = 10", "classes: int = 10 / 0", "cannot be imported: ZeroDivisionError"),
        ("return self.choices(input_size, batch).op_specs()", "return [1]",
         "op_specs gives latlut.OpSpec, received int"),
        ("return self.choices(input_size, batch).op_specs()", "return ()", "nothing to measure"),
        ("return self.choices(input_size, batch).op_specs()",
         "return self.choices(input_size, batch).op_specs()[3:]", "that op_specs of the space"),
        ("return self.choices(input_size, batch).op_specs()", "raise KeyError('width')",
         "op_specs raised KeyError: 'width'"),
        ('"inverted_residual",', '"inverted",', "unknown operator 'inverted'"),
        ("for name, spec, before in zip(names, specs, [IMAGE, *names], strict=False)",
         "for name, spec, before in zip(names, specs, [IMAGE, *names][:-2], strict=False)",
         "graph and its operator configurations disagree\n  in op_specs.. alone: linear"),
        ("zip(names, specs, [IMAGE, *names], strict=False)",
         "zip(names, specs, [IMAGE] * 99, strict=False)", "take the image, 'image', as"),
        ("zip(names, specs, [IMAGE, *names], strict=False)",
         "zip(names, specs, [IMAGE, *names[1:], IMAGE], strict=False)", "does not come before"),
        ("return tuple(\n            Node(", "return list(\n            (", "nodes gives a list"),
        ('"picks": self.picks})', '"picks": {}})', "network_from_json"),
        ('"space": ChainSpace.name, ', "", 'has no "space": "chain"'),
        ('return {"name": self.name,', 'return {"name": "x",', 'no "name": "chain"'),
        ("rng = random.Random(seed)", "rng = random.Random()", "other networks for the same seed"),
        ("for _ in range(count)", "for _ in range(count + 1)", "gives 6 networks"),
        ('return "Chain sampler', 'return 3 and b"Chain sampler', "describe_sampler gives a text"),
        ("stride=2, batch=batch, act", "stride=2, act", "hand the batch on"),
        ("return Choices(tuple(choices), tuple(parts))", "return 3", "choices gives|raised"),
        ("return cls(**own)", "return cls(classes=10 + len(own))", "belongs into to_dict"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(old: str, new: str, words: str, tmp_path: Path) -> None:
    path = _changed(tmp_path, (old, new))
    with pytest.raises(LatlutError, match=f"(?s){words}"):
        check_space(own_space(str(path)), (64, 64), 2)


def test_nothing_is_measured_of_a_space_that_is_wrong(tmp_path: Path) -> None:
    path = _changed(tmp_path, ("[IMAGE, *names]", "[IMAGE, *names][:-2]"))
    table = tmp_path / "t.db"
    result = CliRunner().invoke(main, ["profile", "--cpu", "--space", str(path), "--input", "64x64",
                                       "--table", str(table), "--timeout", "0"])  # fmt: skip
    assert result.exit_code == 2
    assert "graph and its operator configurations disagree" in result.output
    assert not table.exists()


def test_options_that_exclude_each_other(tmp_path: Path) -> None:
    path = str(EXAMPLES / "chain_space.py")
    for words, expected in (
        (["--space", path], "give --input"),
        (["--space", path, "--input", "64x64", "--plan", "tiny"], "leave --op and --plan out"),
        (["--space", str(tmp_path / "no.py"), "--input", "64x64"], "no such file"),
    ):
        result = CliRunner().invoke(main, ["profile", "--cpu", *words, "--timeout", "0"])
        assert (result.exit_code, expected in result.output) == (2, True), result.output


# --- choices, their expectation and the fit ---

WIDTHS = (4, 8, 12)


def _small_choices() -> Choices:
    choices = [Choice(f"width{n}", WIDTHS, "width") for n in range(3)]
    choices += [Choice(f"kernel{n}", (3, 5), "kernel") for n in range(2)]

    def layer(before: int, kernel: int, out: int) -> OpSpec:
        return OpSpec("conv", (before, 8, 8), out, kernel_size=kernel)

    parts = [Part((f"width{n}", f"kernel{n}", f"width{n + 1}"), layer) for n in range(2)]
    parts.append(Part((), lambda: OpSpec("conv", (3, 8, 8), 4)))
    parts.append(Part(("width0",), lambda w: None if w == 4 else OpSpec("conv", (3, 8, 8), w)))
    return Choices(tuple(choices), tuple(parts))


def test_the_expectation_is_the_mean_over_all_networks(tmp_path: Path) -> None:
    choices = _small_choices()
    with make_table(tmp_path / "t.db", choices.op_specs()) as table:
        latency = ChoiceLatency(choices, table).double()
        prices = dict(zip(choices.op_specs(), table.latencies_ms(choices.op_specs()), strict=True))
    torch.manual_seed(1)
    logits = {n: torch.randn(k, dtype=torch.double, requires_grad=True)
              for n, k in choices.counts.items()}  # fmt: skip
    shares = {name: row.detach().softmax(0).numpy() for name, row in logits.items()}
    mean, totals = 0.0, []
    for picked in itertools.product(*(range(k) for k in choices.counts.values())):
        picks = dict(zip(choices.counts, picked, strict=True))
        total = sum(float(prices[spec]) for spec in choices.of(picks))
        assert latency.prices.ms(picks) == pytest.approx(total)
        mean += total * float(np.prod([shares[name][k] for name, k in picks.items()]))
        totals.append(total)
    assert latency(logits).item() == pytest.approx(mean, rel=1e-6)
    assert latency.prices.expected_ms(shares) == pytest.approx(mean)
    assert latency.prices.range_ms() == pytest.approx((min(totals), max(totals)))
    names = list(logits)
    assert torch.autograd.gradcheck(
        lambda *rows: latency(dict(zip(names, rows, strict=True))), tuple(logits.values()),
        atol=1e-4,
    )  # fmt: skip


def test_groups_span_what_their_choices_can_change(tmp_path: Path) -> None:
    choices = _small_choices()
    with make_table(tmp_path / "t.db", choices.op_specs()) as table:
        priced = PricedChoices(choices, table)
    uniform = {name: np.full(count, 1 / count) for name, count in priced.counts.items()}
    for item in priced.group_ranges():
        own = [choice.name for choice in choices.groups[item.group]]
        found = []
        for picked in itertools.product(*(range(priced.counts[name]) for name in own)):
            fixed = {n: np.eye(priced.counts[n])[k] for n, k in zip(own, picked, strict=True)}
            found.append(priced.expected_ms(uniform | fixed))
        assert item.low_ms == pytest.approx(min(found))
        assert item.high_ms == pytest.approx(max(found))


@pytest.mark.parametrize("seed", range(12))
def test_a_fit_lands_within_two_percent(seed: int) -> None:
    """Eight choices of four options, pairwise parts: 65536 networks."""
    rng = np.random.default_rng(seed)
    names = [str(n) for n in range(8)]
    parts = [((a, b), rng.uniform(0.05, 2, (4, 4))) for a, b in itertools.pairwise(names)]
    logits = {name: rng.normal(0, 3, 4) for name in names}
    priced = PricedParts(dict.fromkeys(names, 4), parts, 0.3)
    low, high = priced.range_ms()
    for share in (0.2, 0.5, 0.8):
        target = low + share * (high - low)
        found = priced.fit(logits, target)
        assert found.is_within
        assert found.latency_ms == pytest.approx(priced.ms(found.picks))
        assert abs(found.latency_ms / target - 1) <= 0.02
        assert found.loss >= 0


def test_the_likeliest_network_is_kept_where_it_is_near_and_far_targets_are_refused() -> None:
    latency = ExpectedLatency.from_latencies_ms([[1.0, 2.0], [1.0, 4.0]], fixed_ms=0.5)
    logits = [torch.tensor([3.0, 0.0]), torch.tensor([3.0, 0.0])]
    kept = latency.fit(logits, 2.52)
    assert (kept.picks, kept.changes, kept.loss) == ({"0": 0, "1": 0}, 0, 0.0)
    changed = latency.fit(logits, 3.5)
    assert (changed.picks, changed.is_within) == ({"0": 1, "1": 0}, True)
    assert changed.loss == pytest.approx(3.0)
    assert not latency.fit(logits, 4.5).is_within
    with pytest.raises(
        SpecError, match=r"out of reach: networks of the space take 2\.5 to 6\.5 ms"
    ):
        latency.fit(logits, 9.0)


@pytest.mark.parametrize(
    ("choices", "parts", "words"),
    [
        ((Choice("a", (1,)), Choice("a", (2,))), (), "same name"),
        ((Choice("a", ()),), (), "no options"),
        ((Choice("a", (1,)),), (Part(("b",), lambda b: None),), "'b', which no choice"),
        ((Choice("a", (1,)),), (Part(("a", "a"), lambda a, b: None),), "names a choice twice"),
        (tuple(Choice(str(n), tuple(range(100))) for n in range(4)),
         (Part(("0", "1", "2", "3"), lambda *n: None),), "limit is 1000000"),
    ],
)  # fmt: skip
def test_choices_that_are_none(choices, parts, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        Choices(choices, parts)


def test_missing_entries_and_logits_are_named(tmp_path: Path) -> None:
    choices = _small_choices()
    specs = choices.op_specs()
    with (
        make_table(tmp_path / "t.db", specs[1:]) as table,
        pytest.raises(MissingEntryError, match="lacks 1 entry"),
    ):
        ChoiceLatency(choices, table)
    with make_table(tmp_path / "u.db", specs) as table:
        latency = ChoiceLatency(choices, table)
    logits = dict(latency.new_logits())
    del logits["kernel1"]
    with pytest.raises(SpecError, match="'kernel1' needs 2 logits, received none"):
        latency(logits)


# --- the documented space, end to end ---


@pytest.mark.slow
def test_the_documented_space_from_a_table_to_a_network(tmp_path: Path) -> None:
    """With two stages of three: half of the op specs."""
    changed = _changed(tmp_path, ("((16, 24), (32, 40, 48), (64, 80))", "((16, 24), (32, 48))"))
    space, table = str(changed.rename(tmp_path / "chain_space.py")), str(tmp_path / "chain.db")
    program = tmp_path / "chain_search.py"
    program.write_text((EXAMPLES / "chain_search.py").read_text(encoding="utf-8"))

    def call(*words: str) -> str:
        result = CliRunner().invoke(main, list(words), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    call("profile", "--cpu", "--space", space, "--input", "32x32", "--table", table, "--passes",
         "2", "--ci", "0.2", "--timeout", "0", "-q")  # fmt: skip
    spaces._SPACES.pop("chain")  # as in another process
    forgotten = CliRunner().invoke(main, ["validate", "--table", table])
    assert forgotten.exit_code == 2
    assert f"name the file that registers it, --space {space}" in forgotten.output
    measured = json.loads(call("validate", "--space", space, "--table", table, "--networks", "12",
                               "--rounds", "1", "--explain", "0", "-q", "--json"))  # fmt: skip
    assert len(measured["networks"]) == 12
    spaces._SPACES.pop("chain")
    for words in ([], ["--space", space]):
        said = CliRunner().invoke(main, ["table", "check", table, *words]).output
        assert (f"name the file that registers it, --space {space}" in said) is not bool(words)
        assert ("networks estimated to" in said) is bool(words) or "disturbed" in said
    fitted = json.loads(call("calibrate", "--space", space, "--table", table, "--networks", "10",
                             "--force", "--json"))  # fmt: skip
    assert fitted["networks"] == 10
    gaps = json.loads(call("sensitivity", "--space", space, "--table", table, "--json"))
    assert [item["factor"] for item in gaps["gaps"]] == ["width", "block"]
    assert gaps["predicted"] == gaps["predicted_share"] == fitted["predicted_share"] == 0
    assert all(item["gap_ms"] > 0 for item in gaps["gaps"])
    low, high = gaps["fastest_ms"], gaps["slowest_ms"]
    own = importlib.util.spec_from_file_location("chain_search", program)
    assert own is not None and own.loader is not None
    module = importlib.util.module_from_spec(own)
    sys.modules["chain_search"] = module
    own.loader.exec_module(module)
    target_ms = (low + high) / 2
    found, expected_ms = module.search(table, target_ms)
    assert abs(found.latency_ms / target_ms - 1) <= 0.02
    assert abs(expected_ms / target_ms - 1) < 0.2


def test_a_network_of_ones_own_space_is_estimated_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = str(EXAMPLES / "chain_space.py")
    space = own_space(chain)
    (network,) = space.sample_many(1, seed=3)
    file, table = tmp_path / "net.json", tmp_path / "chain.db"
    file.write_text(network.to_json())
    make_table(table, space.op_specs((64, 64)), lambda spec: 0.5).close()

    def estimated(*words: str):
        return CliRunner().invoke(
            main, ["estimate", "--table", str(table), "--input", "64x64", "--json", *words]
        )

    found = json.loads(estimated("--arch", str(file), "--space", chain).stdout)
    specs = network.op_specs((64, 64))
    assert found["is_complete"]
    assert found["latency_ms"] == pytest.approx(0.5 * len(specs))
    assert {term["op_spec"] for term in found["terms"]} == {spec.key for spec in specs}
    before = dict(spaces._SPACES)
    monkeypatch.setattr(spaces, "_SPACES", {})
    unknown = estimated("--arch", str(file))
    assert unknown.exit_code == 2
    assert "a network of the space 'chain', which nothing registers here" in unknown.output
    assert "--space FILE" in unknown.output
    alone = estimated("--op", "conv 3->16 stride 2 at 64x64", "--space", chain)
    assert alone.exit_code == 2
    assert "--space says what --arch is" in alone.output
    file.write_text('{"space": "chain", "picks": 3')
    monkeypatch.setattr(spaces, "_SPACES", before)
    assert "net.json" in estimated("--arch", str(file), "--space", chain).output
