"""ONNX files on the command line, from a sweep to a calibration, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from onnx_models import segmenter

from latlut.cli import main
from latlut.operators import subgraph_store
from latlut.table.subgraphs import stored_pieces
from latlut.table.table import LatencyTable


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [*map(str, words)])


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    found = []
    for classes in (4, 5, 6):
        path = tmp_path / f"net{classes}-a.onnx"
        path.write_bytes(segmenter(classes=classes))
        found.append(path)
    return found


@pytest.mark.slow
def test_a_file_is_swept_priced_validated_and_swept_again_without_it(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "mine.db"
    swept = run("profile", "--cpu", "--onnx", *files, "--table", table, "--passes", 2, "--json")
    assert swept.exit_code == 0, swept.output
    assert json.loads(swept.stdout)["entries"] == 6  # a convolution and a resize of each
    priced = run("estimate", "--table", table, "--onnx", files[0], "--json")
    assert priced.exit_code == 0, priced.output
    found = json.loads(priced.stdout)
    assert found["is_complete"]
    assert [term["label"] for term in found["terms"]] == [
        "Conv 3->4 3x3 s2 + Relu at 8x12", "Resize at 16x24, network's output",
    ]  # fmt: skip
    assert "Conv 3->4 3x3 s2 + Relu at 8x12" in run("table", "query", table).output
    checked = run("validate", "--table", table, "--onnx", *files, "--rounds", 1, "--json")
    assert checked.exit_code == 0, checked.output
    networks = json.loads(checked.stdout)["networks"]
    names = [json.loads(item["architecture"])["name"] for item in networks]
    assert names == ["net4-a", "net5-a", "net6-a"]
    two = run("validate", "--table", table, "--onnx", *files[:2])
    assert two.exit_code == 2
    assert "2 networks say too little of a table: it takes 3\nname more files" in two.output
    few = run("calibrate", "--table", table, "--onnx", "--force")
    assert few.exit_code == 2
    assert "a calibration needs 10" in few.output
    for path in files:
        path.unlink()
    monkeypatch.setattr(subgraph_store, "_STORE", {})
    again = run("profile", "--onnx", "--table", table, "--passes", 3, "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["measured"] == 6
    with LatencyTable.open(table) as opened:
        assert len(stored_pieces(opened)) == 6


def test_what_a_table_lacks_is_named_with_the_command_that_adds_it(
    files: list[Path], tmp_path: Path
) -> None:
    from small_tables import make_table

    from latlut.operators.onnx_cutting import by_work, cut
    from latlut.operators.onnx_files import read_onnx

    specs = cut(read_onnx(files[0]), by_work).op_specs()
    table = tmp_path / "part.db"
    make_table(table, specs[:1]).close()
    found = run("estimate", "--table", table, "--onnx", files[0])
    assert found.exit_code == 1, found.output
    assert run("estimate", "--table", table, "--onnx", files[0], "--partial").exit_code == 0
    assert "at least" in found.output
    assert "Resize at 16x24" in found.output
    assert f"latlut profile --table {table} --onnx {files[0]}" in found.output
    nothing = run("estimate", "--table", table, "--onnx", files[1])
    assert nothing.exit_code == 1
    assert "has no entry for any piece of net5-a" in nothing.output
    lacking = run("validate", "--table", table, "--onnx", files[0])
    assert lacking.exit_code == 2


@pytest.mark.parametrize(
    "words, message",
    [
        (["profile", "--cpu", "--onnx"], "--onnx takes ONNX files"),
        (["profile", "--cpu", "a.onnx"], "files are for --onnx"),
        (["profile", "--cpu", "--shape", "1x3x8x8"], "--shape is for inputs of ONNX files"),
        (["profile", "--cpu", "--cut", "layers"], "--cut is for pieces"),
        (["profile", "--cpu", "--onnx", "a.onnx", "--plan", "tiny"], "leave --plan, --space"),
        (
            ["profile", "--cpu", "--onnx", "a.onnx", "--ray", "local", "--cut", "layers"],
            "--cut layers asks the engine of the machine that measures",
        ),
        (
            ["profile", "--cpu", "--onnx", "a.onnx", "--remote", "me@b", "--engine", "pytorch"],
            "does not read ONNX files",
        ),
        (["profile", "--cpu", "--onnx", "missing.onnx"], "missing.onnx"),
        (
            ["profile", "--cpu", "--engine", "pytorch", "--onnx", "missing.onnx"],
            "does not read ONNX files",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(words: list[str], message: str) -> None:
    found = run(*words)
    assert found.exit_code == 2
    assert message in found.output


def test_layers_of_a_file(files: list[Path]) -> None:
    found = run("layers", files[0], "--cpu", "--runs", 2, "--json")
    assert found.exit_code == 0, found.output
    nodes = [name for layer in json.loads(found.stdout)["layers"] for name in layer["source_nodes"]]
    assert {"Conv_0", "Relu_1", "Resize_2"} <= set(nodes)


def test_pieces_are_shown_by_their_labels(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from small_tables import make_table

    from latlut.operators.onnx_cutting import by_work, cut
    from latlut.operators.onnx_files import read_onnx
    from latlut.table.subgraphs import keep_graphs

    pieces = [cut(read_onnx(path), by_work).op_specs() for path in files]
    tables = [tmp_path / "before.db", tmp_path / "after.db"]
    specs = ([*pieces[0], *pieces[1]], [*pieces[0], *pieces[2]])
    for path, own, ms in zip(tables, specs, (1.0, 2.0), strict=True):
        with make_table(path, own, lambda spec, ms=ms: ms) as table:
            keep_graphs(table, own)
    monkeypatch.setattr(subgraph_store, "_STORE", {})
    shown = run("table", "diff", *tables).output
    assert "Conv 3->4 3x3 s2 + Relu at 8x12 [" in shown
    assert "only in BEFORE, such as " in shown and "only in AFTER, such as " in shown
    assert "subgraph_" not in shown
    exported = run("table", "export", tables[0], tmp_path / "entries.csv")
    assert exported.exit_code == 0
    assert not exported.stderr


def test_pieces_whose_graphs_are_nowhere_are_named_where_they_matter(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from small_tables import make_table

    from latlut.operators.onnx_cutting import by_work, cut
    from latlut.operators.onnx_files import read_onnx

    bare = tmp_path / "bare.db"
    make_table(bare, cut(read_onnx(files[0]), by_work).op_specs()).close()
    monkeypatch.setattr(subgraph_store, "_STORE", {})
    exported = run("table", "export", bare, tmp_path / "entries.csv")
    assert exported.exit_code == 0
    assert "2 of them are pieces of ONNX files without their graphs" in exported.stderr
    words = ["--cpu", "--engine", "onnxruntime", "--onnx"]
    found = run("profile", *words, "--table", bare, "--dry-run")
    assert found.exit_code == 2
    assert f"2 pieces in {bare} came without their graphs: name files" in found.output


@pytest.mark.parametrize("how", ["key", "plan file", "dry run", "python", "workers", "table"])
def test_pieces_whose_graphs_are_nowhere_are_refused_before_a_table_is_made(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    from scripted_pool import ScriptedPool
    from small_tables import make_table

    from latlut.cluster.sweep import _sweep
    from latlut.engines import engine_class
    from latlut.errors import SpecError
    from latlut.machine.targets import cpu_target
    from latlut.measure.plans import plan_from_ops
    from latlut.measure.profile import profile
    from latlut.measure.sweep_settings import SweepSettings
    from latlut.operators.onnx_cutting import by_work, cut
    from latlut.operators.onnx_files import read_onnx

    specs = cut(read_onnx(files[0]), by_work).op_specs()
    table = tmp_path / "new.db"
    if how == "table":  # of another piece
        make_table(table, specs[1:]).close()
        before = table.read_bytes()
    monkeypatch.setattr(subgraph_store, "_STORE", {})
    plan = plan_from_ops([specs[0].key])
    if how in ("python", "table"):
        with pytest.raises(SpecError, match="does not hold its graph"):
            profile(plan, engine_class("onnxruntime")(threads=1), cpu_target(1), table)
    elif how == "workers":
        with pytest.raises(SpecError, match="does not hold its graph"):
            _sweep(plan, SweepSettings(), ScriptedPool([1.0]), lambda _: table, None, None)
    else:
        named = ["--op", specs[0].key]
        if how == "plan file":
            (tmp_path / "mine.toml").write_text(f'format = 1\nops = ["{specs[0].key}"]')
            named = ["--plan", tmp_path / "mine.toml"]
        more = ["--dry-run"] if how == "dry run" else []
        found = run("profile", "--cpu", *named, "--table", table, *more)
        assert found.exit_code == 2, found.output
        words = f"a piece of an ONNX file, and {table} does not hold its graph: name the file"
        assert words in " ".join(found.output.split())
    if how == "table":
        assert table.read_bytes() == before
    else:
        assert not list(tmp_path.rglob("*.db"))


@pytest.mark.slow
def test_a_piece_is_measured_by_its_key_where_the_table_has_its_graph(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "mine.db"
    assert (
        run("profile", "--cpu", "--onnx", files[0], "--table", table, "--passes", 1).exit_code == 0
    )
    with LatencyTable.open(table) as opened:
        (key, _) = [spec.key for spec in stored_pieces(opened)]
    monkeypatch.setattr(subgraph_store, "_STORE", {})
    again = run("profile", "--cpu", "--op", key, "--table", table, "--passes", 2, "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["measured"] == 1


def test_layers_of_another_engine_price_no_file(files: list[Path], tmp_path: Path) -> None:
    from small_tables import make_table

    from latlut.operators.onnx_cutting import by_work, cut
    from latlut.operators.onnx_files import read_onnx
    from latlut.table.identity import Identity
    from latlut.table.subgraphs import keep_cut

    own = Identity("cpu", "another CPU", "onnxruntime", "1.0.0")
    specs = cut(read_onnx(files[0]), by_work).op_specs()
    with make_table(tmp_path / "layers.db", specs, identity=own) as table:
        keep_cut(table, "layers")
    found = run("estimate", "--table", tmp_path / "layers.db", "--onnx", files[0])
    assert found.exit_code == 2
    assert "holds the layers of onnxruntime 1.0.0 on another CPU" in found.output
    assert "--cut work" in found.output


def test_of_many_unpriced_op_specs_the_first_are_printed(tmp_path: Path) -> None:
    from small_tables import make_table

    from latlut.opspec import OpSpec

    make_table(tmp_path / "one.db", [OpSpec("conv", (8, 8, 8), 8)]).close()
    ops = [word for out in range(8, 49) for word in ("--op", f"conv 8->{out} stride 1 at 8x8")]
    found = run("estimate", "--table", tmp_path / "one.db", *ops)
    assert found.exit_code == 1
    assert "conv 8->38 stride 1 at 8x8\n  ... 10 more: --json" in found.stdout
