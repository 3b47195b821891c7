"""The authors' architecture files: written here in their layout, read back, damaged, hostile."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from published_file import official_state, save_on_gpu
from relaxed_networks import relaxed_from

from latlut.errors import ImportFileError, LatlutError, SpecError
from latlut.resources import profiles_dir
from latlut.search.derive.derive import derive
from latlut.search.derive.published import MAX_FILE_BYTES, read_published
from latlut.spaces import Architecture, FasterSegSpace


def published(name: str) -> Architecture:
    return Architecture.load(profiles_dir() / "architectures" / f"fasterseg-{name}.json")


def student_state() -> dict[str, Any]:
    relaxed = relaxed_from(published("student"), FasterSegSpace(), decoding="released")
    return official_state(relaxed, 1)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(("name", "index"), [("student", 1), ("teacher", 0)])
def test_published_networks_come_out_of_official_files(
    tmp_path: Path, name: str, index: int, is_zip: bool
) -> None:
    network = published(name)
    relaxed = relaxed_from(network, FasterSegSpace(), decoding="released", allow_skip=index == 1)
    path = save_on_gpu(official_state(relaxed, index), tmp_path / f"arch_{index}.pt", is_zip)
    assert b"cuda:0" in path.read_bytes()
    found = read_published(path)
    assert found.role == name
    assert found.scales == (16, 32)
    assert found.architecture == network
    assert found.scores == {(8, 32): (0.6, 7.5), (16, 32): (0.65, 7.0)}
    assert torch.equal(found.relaxed.alpha, relaxed.alpha)
    assert torch.equal(found.relaxed.beta, relaxed.beta)
    assert torch.equal(found.relaxed.gamma, relaxed.gamma)


def test_every_logit_lands_in_its_place(tmp_path: Path) -> None:
    """Numbers that say which scale, layer and column they stand for."""
    state = student_state()
    for order in range(3):
        for name, first in (("alpha", order), ("beta", order + 1), ("ratio", max(order, 1))):
            key = f"{name}_1_{order}"
            if key in state:
                rows, columns = state[key].shape
                layers = torch.arange(first, first + rows).float()
                values = 1000 * 2**order + 10 * layers[:, None] + torch.arange(columns)
                state[key] = values
    found = read_published(save_on_gpu(state, tmp_path / "x.pt"), branches=(16, 32)).relaxed
    for row, (layer, scale) in enumerate(found.space.cells()):
        base = 1000 * scale / 8 + 10 * layer
        # skip, conv, conv_2x, zoomed_conv, zoomed_conv_2x
        assert found.alpha[row].tolist() == [base, base + 1, base + 3, base + 2, base + 4]
        if row:
            assert found.gamma[row - 1].tolist() == [base + i for i in range(5)]
        if row in found.two_way:
            assert found.beta[found.two_way.index(row)].tolist() == [base, base + 1]


def test_branches_follow_the_scores_or_the_option(tmp_path: Path) -> None:
    state = student_state()
    path = tmp_path / "arch_1.pt"
    faster = state | {"mIoU02": 0.65, "latency02": 6.9}
    assert read_published(save_on_gpu(faster, path)).scales == (8, 32)
    # equal scores: the authors' code takes {16, 32}
    assert read_published(save_on_gpu(faster | {"latency02": 7.0}, path)).scales == (16, 32)
    other = read_published(path, branches=(32, 8))
    assert [branch.scale for branch in other.architecture.branches] == [8, 32]
    assert other.architecture == derive(other.relaxed, (8, 32), "released")
    with pytest.raises(SpecError, match="received"):
        read_published(path, branches=(16,))


def test_decoding_is_a_choice(tmp_path: Path) -> None:
    relaxed = relaxed_from(
        published("teacher"), FasterSegSpace(), decoding="released", allow_skip=False
    )
    path = save_on_gpu(official_state(relaxed, 0), tmp_path / "arch_0.pt")
    positions = {
        decoding: [cell.is_down for cell in network.branches[0].cells].index(True)
        for decoding in ("released", "corrected", "path")
        if (network := read_published(path, decoding).architecture)
    }
    assert positions == {"released": 4, "corrected": 5, "path": 5}


def test_files_of_one_width(tmp_path: Path) -> None:
    state = student_state()
    for key in [key for key in state if key.startswith("ratio")]:
        state[key] = state[key][:, :1]
    pruned = read_published(save_on_gpu(state, tmp_path / "x.pt")).architecture
    assert {c.width for b in pruned.branches for c in b.cells[:-1]} == {4}
    teacher = {key.replace("_1_", "_0_"): value for key, value in state.items()}
    wide = read_published(save_on_gpu(teacher, tmp_path / "x.pt")).architecture
    assert {c.width for b in wide.branches for c in b.cells} == {12}


def test_scores_in_every_form_of_number(tmp_path: Path) -> None:
    forms = {"mIoU02": np.float32(0.5), "mIoU12": 0, "latency02": torch.tensor(3.0)}
    state = student_state() | forms
    for is_zip in (True, False):
        found = read_published(save_on_gpu(state, tmp_path / "x.pt", is_zip))
        assert found.scores == {(8, 32): (0.5, 3.0), (16, 32): (0.0, 7.0)}


def without(*keys: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda state: {key: value for key, value in state.items() if key not in keys}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {}, "alpha_1_0 .*an empty dict"),
        (without("alpha_1_0"), r"alpha_1_0 \(student\), received the keys alpha_1_1"),
        (lambda s: s | {"alpha_0_0": s["alpha_1_0"]}, "expected alpha_0_0"),
        (without("beta_1_2"), "beta_1_2: expected a tensor of floats, received nothing"),
        (lambda s: s | {"ratio_1_1": 3.0}, "ratio_1_1: expected a tensor of floats, .*float"),
        (lambda s: s | {"alpha_1_1": torch.zeros(15, 5, dtype=torch.long)}, "alpha_1_1"),
        (
            lambda s: s | {"beta_1_1": s["beta_1_1"][:-1]},
            r"beta_1_1 has shape \(13, 2\), expected \(14, 2\) for 16 layers",
        ),
        (
            lambda s: s | {"alpha_1_2": s["alpha_1_2"][:, :4]},
            r"alpha_1_2 has shape \(14, 4\), expected \(14, 5\)",
        ),
        (
            lambda s: s | {"ratio_1_0": s["ratio_1_0"][:, :1]},
            r"ratio_1_1 has shape \(15, 5\), expected \(15, 1\)",
        ),
        (lambda s: s | {"alpha_1_0": s["alpha_1_0"][:4]}, "5 to 256 layers"),
        (lambda s: s | {"alpha_1_0": s["alpha_1_0"][0]}, r"alpha_1_0 has shape \(5,\)"),
        (lambda s: s | {"beta_1_2": s["beta_1_2"] * np.nan}, "beta_1_2 holds values.*not finite"),
        (lambda s: s | {"mIoU12": float("nan")}, "mIoU12 is nan"),
        (lambda s: s | {"mIoU12": "much"}, "mIoU12 is 'much'"),
        (lambda s: s | {"latency02": 0.0}, "latency02 is 0.0 ms"),
        (lambda s: s | {"latency02": torch.zeros(2)}, "latency02 is Tensor"),
        (without("latency12"), "no scores.*--scales 16,32"),
        (lambda s: list(s.values()), "received a list"),
        (lambda s: {1: s["alpha_1_0"]}, "expected a dict"),
    ],
)
def test_files_with_something_else_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    path = save_on_gpu(change(student_state()), tmp_path / "arch_1.pt")
    with pytest.raises(ImportFileError, match=f"arch_1.pt: .*{message}"):
        read_published(path)


def test_a_file_of_pretraining_needs_branches(tmp_path: Path) -> None:
    state = without("latency02", "latency12")(student_state())
    path = save_on_gpu(state, tmp_path / "arch_1.pt")
    found = read_published(path, branches=(16, 32))
    assert found.scores == {}
    assert found.architecture == published("student")


class Command:
    """What a hostile pickle holds: a call of any function."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_nothing_in_a_hostile_file_is_run(tmp_path: Path, is_zip: bool) -> None:
    mark = tmp_path / "was-run"
    path = tmp_path / "arch_1.pt"
    state = student_state() | {"mIoU02": Command(os.system, f"touch {mark}")}
    torch.save(state, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ImportFileError, match=r"names \w+\.system.*nothing in the file was run"):
        read_published(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists(), "the file would have run its command elsewhere"


def test_allowed_names_allow_no_more_than_numbers(tmp_path: Path) -> None:
    import codecs

    path = tmp_path / "arch_1.pt"
    object_array = np.array([Command(os.getcwd)], dtype=object)
    for value in (
        Command(codecs.encode, "text", "idna"),
        Command(np.dtype, "O"),
        np.int64(3),
        np.array([0.5]),
        object_array,
        np.bytes_(b"x"),
    ):
        torch.save(student_state() | {"mIoU02": value}, path)
        with pytest.raises(ImportFileError):
            read_published(path)
    path.write_bytes(pickle.dumps({"alpha_1_0": 1}))
    with pytest.raises(ImportFileError, match="not a torch file|a tensor of floats"):
        read_published(path)


def test_what_is_no_torch_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportFileError, match="no such file"):
        read_published(tmp_path / "missing.pt")
    with pytest.raises(ImportFileError, match="is a folder"):
        read_published(tmp_path)
    path = tmp_path / "arch_1.pt"
    for content in (b"", b"\x80", b"{}", b"PK\x03\x04", os.urandom(1000)):
        path.write_bytes(content)
        with pytest.raises(ImportFileError, match="not a torch file|a damaged archive"):
            read_published(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "no torch file")
    with pytest.raises(ImportFileError, match="not a torch file"):
        read_published(path)
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ImportFileError, match="larger than 1 MiB"):
        read_published(path)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@given(st.data())
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damage_is_refused_or_read_but_never_a_traceback(
    tmp_path: Path, is_zip: bool, data: st.DataObject
) -> None:
    whole = tmp_path / "whole.pt"
    if not whole.exists():
        save_on_gpu(student_state(), whole, is_zip)
    content = bytearray(whole.read_bytes())
    path = tmp_path / "damaged.pt"
    cut = data.draw(st.integers(0, len(content) - 1), label="length")
    path.write_bytes(content[:cut])
    with pytest.raises(ImportFileError):
        read_published(path)
    for _ in range(data.draw(st.integers(1, 4), label="flips")):
        content[data.draw(st.integers(0, len(content) - 1), label="at")] ^= 0x41
    path.write_bytes(content)
    try:
        assert isinstance(read_published(path).architecture, Architecture)
    except LatlutError as error:
        assert "damaged.pt" in str(error)


@pytest.mark.parametrize(
    "value",
    [
        "0.5", True, -1, float("nan"), float("inf"), 1e300, 10**400, [0.5], None, torch.zeros(3),
        torch.tensor(0.5).expand(1 << 40), torch.zeros((), device="meta"),
        torch.tensor(0.5 + 1j), torch.tensor(True),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_score_that_is_no_number_is_refused(tmp_path: Path, value: object) -> None:
    path = tmp_path / "arch_1.pt"
    torch.save(student_state() | {"mIoU02": value}, path)
    with pytest.raises(ImportFileError, match="mIoU02 is"):
        read_published(path)
