"""Every shipped preset is valid; wrong values are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from latlut.errors import ImportFileError, SpecError, UnknownNameError
from latlut.search.cosearch.settings import SearchSettings, load_settings
from latlut.search.penalty.weights import PAPER_WEIGHTS
from latlut.search.runs.setting_files import preset_names, validated


def test_the_presets_are_there() -> None:
    assert {"paper", "small", "tiny"} <= set(preset_names("searches"))


@pytest.mark.parametrize("name", preset_names("searches"))
def test_every_preset_is_valid_and_survives_a_round_trip(name: str) -> None:
    settings = load_settings(name)
    assert validated(SearchSettings, settings.to_dict(), "a copy") == settings


def test_the_paper_preset_has_the_papers_numbers() -> None:
    settings = load_settings("paper")
    assert (settings.pretrain.epochs, settings.pretrain.iterations) == (20, 495)
    assert (settings.search.epochs, settings.search.iterations) == (30, 743)
    assert (settings.pretrain.batch, settings.search.batch) == (3, 2)
    assert (settings.architecture.lr, settings.architecture.betas) == (3e-4, (0.5, 0.999))
    assert settings.latency.weights == PAPER_WEIGHTS
    assert settings.latency.target_ms == 8.3
    # lambda 0.01 per millisecond
    assert settings.latency.strength / settings.latency.target_ms == pytest.approx(0.01)


def test_flags_override_the_file() -> None:
    settings = load_settings("tiny", {"search.epochs": 2, "latency.target_ms": 3.5, "seed": 7})
    assert (settings.search.epochs, settings.latency.target_ms, settings.seed) == (2, 3.5, 7)


def test_wrong_keys_and_values_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[pretrain]\nepochs = 1\n[search]\nepoch = 2\nlr = -1\n")
    with pytest.raises(SpecError) as caught:
        load_settings(path)
    text = str(caught.value)
    for expected in ("mine.toml", "search.epochs", "search.epoch", "search.lr", "-1"):
        assert expected in text
    path.write_text("[pretrain\n")
    with pytest.raises(ImportFileError, match="not TOML"):
        load_settings(path)
    with pytest.raises(UnknownNameError, match="did you mean 'tiny'"):
        load_settings("tinny")
