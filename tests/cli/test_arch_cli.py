"""``latlut arch``: show and import, and the price of what was imported."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from published_file import official_state, save_on_gpu
from relaxed_networks import relaxed_from

from latlut.cli import main
from latlut.cli.layout import number_text
from latlut.operators.building import cost
from latlut.operators.network import Network
from latlut.resources import profiles_dir
from latlut.spaces import Architecture, FasterSegSpace


def run(*args: str) -> Result:
    return CliRunner().invoke(main, list(args))


def student() -> Architecture:
    return Architecture.load(profiles_dir() / "architectures" / "fasterseg-student.json")


@pytest.fixture
def student_file(tmp_path: Path) -> Path:
    relaxed = relaxed_from(student(), FasterSegSpace(), decoding="released")
    return save_on_gpu(official_state(relaxed, 1), tmp_path / "arch_1.pt")


def test_show_lists_every_node_with_its_cost() -> None:
    result = run("arch", "show", "fasterseg-student")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "3 shared; stem 8/12, head 8/12" in lines[0]
    for node in student().nodes():
        (line,) = (line for line in lines if line.startswith(f"{node.name} "))
        assert f" {node.spec.kind} " in line
        assert number_text(cost(node.spec).params / 1e3) in line.split()
    (down,) = (line for line in lines if line.startswith("branch32.cell.3 "))
    assert re.split("  +", down) == [
        "branch32.cell.3", "zoomed_conv", "1/8 to 1/16", "8/12", "32 to 128", "2", "37.12", "302",
    ]  # fmt: skip


def test_show_counts_what_the_built_network_has(tmp_path: Path) -> None:
    network = FasterSegSpace(layers=6).sample(3)
    path = tmp_path / "found.json"
    network.save(path)
    result = run("arch", "show", str(path), "--json", "--input", "100x150")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    module = Network(network.nodes((100, 150)))
    assert facts["parameters"] == sum(parameter.numel() for parameter in module.parameters())
    assert facts["macs"] == sum(cost(spec).macs for spec in network.op_specs((100, 150)))
    assert facts["input_size"] == [100, 150]
    widths = [node["width"] for node in facts["nodes"] if node["width"] is not None]
    cells = sum(len(branch.cells) for branch in network.branches) - network.shared_cells
    assert len(widths) == cells
    assert facts["shared_cells"] == network.shared_cells
    for node in facts["nodes"]:
        if ".cell." in node["node"]:
            assert node["scale"] == node["in_scale"] * node["stride"]
            full = 12 * node["scale"] * node["width"] // 12
            assert node["channels"] == full


def test_show_draws(tmp_path: Path) -> None:
    path = tmp_path / "student.svg"
    result = run("arch", "show", "fasterseg-student", "--plot", str(path))
    assert result.exit_code == 0, result.output
    assert f"drawn into {path}" in result.stdout
    assert path.read_text().startswith("<?xml")


def test_imported_file_is_priced_by_a_table(tmp_path: Path, student_file: Path) -> None:
    out = tmp_path / "student.json"
    result = run("arch", "import", str(student_file), "-o", str(out))
    assert result.exit_code == 0, result.output
    assert "the student of" in result.stdout
    assert "branches 16,32: mIoU 0.65, 7 ms stored  <- chosen" in result.stdout
    assert Architecture.load(out) == student()

    specs = dict.fromkeys(student().op_specs((128, 256)))
    entries = tmp_path / "entries.csv"
    rows = [f'"{spec.key}",{index + 1}' for index, spec in enumerate(specs)]
    entries.write_text("\n".join(["op_spec,latency_ms", *rows]) + "\n")
    table = tmp_path / "table.db"
    fields = {"target": "cpu", "device_model": "a box", "engine": "mine", "engine_version": "1"}
    options = [part for key, value in fields.items() for part in ("--identity", f"{key}={value}")]
    made = run("table", "import", str(entries), "--table", str(table), *options)
    assert made.exit_code == 0, made.output
    priced = run(
        "estimate", "--table", str(table), "--arch", str(out), "--input", "128x256", "--json"
    )
    assert priced.exit_code == 0, priced.output
    price = {spec: index + 1 for index, spec in enumerate(specs)}
    expected = sum(price[spec] for spec in student().op_specs((128, 256)))
    found = json.loads(priced.stdout)
    assert found["is_complete"]
    assert found["latency_ms"] == pytest.approx(expected)


def test_import_options(tmp_path: Path, student_file: Path) -> None:
    out = tmp_path / "x.json"
    args = ("arch", "import", str(student_file), "-o", str(out), "--json")
    result = run(*args, "--scales", "32,8", "--decoding", "corrected")
    assert result.exit_code == 0, result.output
    assert [branch.scale for branch in Architecture.load(out).branches] == [8, 32]
    assert json.loads(result.stdout) == {
        "file": str(student_file),
        "out": str(out),
        "role": "student",
        "decoding": "corrected",
        "branches": [8, 32],
        "chosen_by": "option",
        "scores": [
            {"branches": [8, 32], "miou": 0.6, "latency_ms": 7.5},
            {"branches": [16, 32], "miou": 0.65, "latency_ms": 7.0},
        ],
    }


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("show", "fasterseg-studnt"), "did you mean 'fasterseg-student'"),
        (("show", "arch_1.pt"), "arch_1.pt"),
        (("show", "fasterseg-student", "--plot", "x.jpg"), "end in .pdf, .png, .svg"),
        (("import", "missing.pt", "-o", "x.json"), "missing.pt: no such file"),
        (("import", "arch_1.pt", "-o", "x.pt"), "is written as .json"),
        (("import", "arch_1.pt", "-o", "x.json", "--scales", "16"), "received (16,)"),
        (("import", "arch_1.pt", "-o", "x.json", "--scales", "4,16"), "names no branches"),
        (("import", "arch_1.pt", "-o", "x.json", "--decoding", "right"), "no choice 'right'"),
        (("import", "other.pt", "-o", "x.json"), "expected a dict"),
    ],
)
def test_refusals_say_what_to_do(
    tmp_path: Path,
    student_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(student_file.parent)
    torch.save([1, 2], "other.pt")
    result = run("arch", *args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.glob("x.*"))
