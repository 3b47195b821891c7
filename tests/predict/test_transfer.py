"""A new device from a few measurements: right for mixtures of devices, honest about others."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import spearmanr
from small_tables import make_table

from latlut.cli import main
from latlut.errors import PredictionError
from latlut.opspec import OpSpec
from latlut.predict.transfer import DevicePrior
from latlut.table.table import LatencyTable

HWDATA = Path(__file__).resolve().parents[3] / "shared" / "hwdata"


def devices(seed: int, items: int = 200, count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """(items, count) latencies, mixtures of the features' effects with a noise of 2%; features."""
    random = np.random.default_rng(seed)
    features = random.integers(0, 2, (items, 12)).astype(float)
    base = random.uniform(0.2, 1, 12)
    effects = base[:, None] * random.lognormal(0, 0.4, (12, count))
    noise = random.lognormal(0, 0.02, (items, count))
    return (2 + features @ effects) * noise * random.uniform(0.5, 5, count), features


def test_ten_measurements_tell_a_new_device() -> None:
    inside, ranks = [], []
    for seed in range(5):
        latencies, features = devices(seed)
        prior, truth = DevicePrior(latencies[:, :-1], features), latencies[:, -1]
        items = prior.next_items(10)
        found = prior.transfer(items, truth[items])
        left = np.setdiff1d(np.arange(len(truth)), items)
        width = found.quantile * found.sd
        inside.append(np.mean((np.abs(found.mean - truth) <= width)[left]))
        ranks.append(spearmanr(found.mean[left], truth[left])[0])
    assert 0.85 < np.mean(inside) < 0.999
    assert np.mean(ranks) > 0.9


def test_chosen_items_tell_more_than_random_ones() -> None:
    gain = []
    for seed in range(4):
        latencies, features = devices(seed)
        prior, truth = DevicePrior(latencies[:, :-1], features), latencies[:, -1]
        chosen = prior.next_items(8)
        assert len(set(chosen)) == 8
        drawn = np.random.default_rng(seed).choice(len(truth), 8, replace=False)
        errors = [
            np.mean(np.abs(prior.transfer(items, truth[items]).mean / truth - 1))
            for items in (chosen, list(drawn))
        ]
        gain.append(errors[0] / errors[1])
    assert np.exp(np.mean(np.log(gain))) < 1
    allowed = np.zeros(200, bool)
    allowed[:20] = True
    assert set(prior.next_items(5, measured=[3], allowed=allowed)) <= set(range(20)) - {3}


def test_posterior_is_that_of_the_linear_model() -> None:
    """Against the textbook: a Gaussian process with an unknown level, all matrices written out."""
    latencies, features = devices(3, items=40)
    prior, items = DevicePrior(latencies[:, :-1], features), [0, 5, 9, 20, 31]
    values = latencies[items, -1]
    found = prior.transfer(items, values)
    phi = np.concatenate(
        [b * v**0.5 for b, v in zip(prior._phi, prior.variances.blocks, strict=True)], axis=1
    )
    noise = prior.variances.noise
    inverse = np.linalg.inv(phi[items] @ phi[items].T + noise * np.eye(5))
    ones = np.ones(5)
    level = ones @ inverse @ values / (ones @ inverse @ ones)
    beside = phi @ phi[items].T
    mean = level + beside @ inverse @ (values - level)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-6)
    scale = (values - level) @ inverse @ (values - level) / 4
    lever = 1 - beside @ inverse @ ones
    variance = (phi**2).sum(1) - np.einsum("ij,jk,ik->i", beside, inverse, beside)
    variance += lever**2 / (ones @ inverse @ ones) + noise
    np.testing.assert_allclose(found.sd, np.sqrt(scale * variance), rtol=1e-5)


def test_too_little_is_refused() -> None:
    latencies, features = devices(0, items=30)
    with pytest.raises(PredictionError, match="2 or more"):
        DevicePrior(latencies[:, :1], features)
    with pytest.raises(PredictionError, match="too few to tell"):
        DevicePrior(latencies, features).transfer([0, 1], [1.0, 2.0])


@pytest.mark.skipif(not HWDATA.is_dir(), reason="no published device data beside the checkout")
@pytest.mark.slow
def test_published_devices_are_ranked() -> None:
    """HELP states a mean Spearman correlation of 0.910 for its FBNet devices."""
    with gzip.open(HWDATA / "fbnet.csv.gz", "rt") as file:
        header = file.readline().strip().split(",")
        rows = [line.strip().split(",") for line in file]
    column = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    operators = np.array([text.split() for text in column["architecture"]], int)
    features = np.concatenate([operators == k for k in range(1, 9)], axis=1).astype(float)
    known = ("1080ti_1", "1080ti_32", "1080ti_64", "silver_4114", "silver_4210r",
             "samsung_a50", "pixel3", "essential_ph_1", "samsung_s7")  # fmt: skip
    test = ("titan_rtx_1", "titan_rtx_64", "gold_6226", "raspi4", "eyeriss", "fpga", "pixel2")
    prior = DevicePrior(np.array([column[name] for name in known], float).T, features)
    items = prior.next_items(10)
    ranks = []
    for name in test:
        truth = np.array(column[name], float)
        ranks.append(spearmanr(prior.transfer(items, truth[items]).mean, truth)[0])
    assert np.mean(ranks) > 0.93


SPECS = [
    OpSpec(kind, (channels, side, 2 * side), out)
    for kind in ("conv", "conv_2x")
    for channels in (32, 64, 96)
    for out in (32, 64, 128)
    for side in (8, 16, 32)
]


def on_device(slope: float, speed: float, launch: float) -> dict[OpSpec, float]:
    """Latencies on a device of that speed."""
    return {
        s: launch + (1 + (s.kind == "conv_2x"))
        * (s.in_channels * s.out_channels * s.out_size[0] ** 2) ** slope / speed
        for s in SPECS
    }  # fmt: skip


def test_command(tmp_path: Path) -> None:
    for number, device in enumerate([(0.9, 3e5, 0.01), (1.0, 1e6, 0.02), (0.8, 1e5, 0.03)]):
        make_table(tmp_path / f"{number}.db", SPECS, on_device(*device).__getitem__).close()
    sources = ",".join(str(tmp_path / f"{number}.db") for number in range(3))
    new, run = tmp_path / "new.db", CliRunner().invoke
    first = run(main, ["transfer", "--to", str(new), "--from", sources])
    assert first.exit_code == 0 and "measure these 10 next" in first.output
    assert "latlut profile" in first.output and not new.exists()
    truth = on_device(0.85, 2e5, 0.02)
    with LatencyTable.open(tmp_path / "0.db") as table:
        items = [e.spec for e in table][::5]
    make_table(new, items, truth.__getitem__).close()
    second = run(main, ["transfer", "--to", str(new), "--from", sources])
    assert second.exit_code == 0, second.output
    assert "measure these 5 next" in second.output and "stored as such" in second.output
    with LatencyTable.open(new) as table:
        left = [e for e in table if e.is_predicted]
        assert len(left) == len(SPECS) - len(items) == table.predicted_count
        error = [abs(e.latency_ms / truth[e.spec] - 1) for e in left]
        assert np.median(error) < 0.1
        assert not table.lookup(items[0]).is_predicted


def test_devices_with_nothing_in_common_are_refused(tmp_path: Path) -> None:
    small = [OpSpec("conv", (8, 4, 8), out) for out in range(1, 41)]
    make_table(tmp_path / "a.db", SPECS).close()
    make_table(tmp_path / "b.db", small).close()
    make_table(tmp_path / "c.db", SPECS).close()
    run = CliRunner().invoke
    for target, sources, text in (
        ("new", ("a", "b"), "0 measured operator configurations in common"),
        ("new", ("a",), "name 2 or more"),
        ("b", ("a", "c"), "no operator configuration in common"),
        ("a", ("a", "c"), "leave it out"),
    ):
        names = ",".join(str(tmp_path / f"{name}.db") for name in sources)
        found = run(main, ["transfer", "--to", str(tmp_path / f"{target}.db"), "--from", names])
        assert found.exit_code == 2 and text in found.output, found.output
