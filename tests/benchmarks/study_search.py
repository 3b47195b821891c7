"""Studies of the search, each one command, on generated scenes or real images.

    study_search.py random OUT --table FILE        searched against random at equal latency
    study_search.py correlation OUT --table FILE   inherited against trained mIoU of 30 networks
    study_search.py inherited OUT --table FILE --runs FOLDER...
                                                   how finished searches' scores order the networks
                                                   that "random" trained
    study_search.py short OUT --table FILE         how shorter trainings (--train-set) order the
                                                   networks that "random" trained
    study_search.py collapse OUT --table FILE      naive and decoupled at a fixed strong lambda

    --data PATH     images to search and train on; generated street scenes if not given
    --seeds 3       searches, from seed --first 0 on; --trainings 5 of each network; --randoms 4
                    fresh ones per search
    --methods ranked finalists paper    with the phase that ranks networks; with trainings of 32 and
                                        then 4 finalists on top of it; and without either
    --set NAME=VALUE, --train-set NAME=VALUE    of the presets "tiny"

A network that is trained is written to OUT/trainings.jsonl at once, and a command that is given
again goes on behind what is there. Random networks are of two kinds, in turn: the space's sampler,
and random logits through the search's own decoding and fitting; both within 2% of the searched
network's latency. Trainings see other scenes than the searches.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from search_statistics import compared, draw_scores

from latlut.search.cosearch.problem import SearchProblem
from latlut.search.cosearch.ranking import sampler_of
from latlut.search.cosearch.run import run_search
from latlut.search.cosearch.search import Search
from latlut.search.cosearch.settings import SearchSettings, load_settings
from latlut.search.data.opening import open_data
from latlut.search.derive.derive import Placed
from latlut.search.derive.fitting import Fitter
from latlut.search.networks.network import trainable
from latlut.search.runs.folder import RESULT
from latlut.search.runs.listening import RunListener
from latlut.search.train.data import checked_data
from latlut.search.train.settings import TrainSettings, load_train_settings
from latlut.search.train.training import Training
from latlut.spaces import Architecture
from latlut.table.table import LatencyTable

TOLERANCE = 0.02
TRIES = 20_000
#: Lambda times the target, held: what Fig. 4 of the paper is about.
FIXED = {"latency.strength": 30.0, "latency.proportional": 0, "latency.integral": 0, "rank": None}
#: What each method changes in the preset.
METHODS: dict[str, dict[str, Any]] = {
    "ranked": {},
    "finalists": {"finalists__networks": 4},
    "paper": {"rank": None},
}
#: Of random networks, in turn.
KINDS = ("sampler", "logits")
#: Of a training: all that tells it from the others.
Key = dict[str, Any]
WEIGHTS = {"naive": (1 / 3, 1 / 3, 1 / 3), "paper": (0.001, 0.997, 0.002)}


class Study:
    """The command line's table, settings and files."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.out = options, Path(options.out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.table = LatencyTable.open(options.table)
        names = {} if options.data is None else {"data.name": options.data}
        self.searching = {**names, **dict(map(_setting, options.set))}
        self.training = load_train_settings(
            "tiny", {**names, **dict(map(_setting, options.train_set))}
        )
        self.lines = self.out / "trainings.jsonl"

    def settings(self, seed: int, **more: Any) -> SearchSettings:
        """Of a search."""
        chosen = {
            **self.searching,
            "seed": seed,
            **{k.replace("__", "."): v for k, v in more.items()},
        }
        return load_settings("tiny", chosen)

    def search(self, name: str, settings: SearchSettings) -> Any:
        """A search, gone on with or read."""
        told = RunListener(remark=lambda text: print(text, flush=True))
        ranked = self.out / name.replace("finalists", "ranked")
        if not (self.out / name).exists() and (ranked / RESULT).exists():
            shutil.copytree(ranked, self.out / name)  # it gets its finalists now
        return run_search(self.table, settings, self.out / name, listener=told)

    def trained(self, wanted: Sequence[tuple[Key, Architecture, int]]) -> list[float]:
        """mIoU of networks after training with a seed, percentages; read where they are known.

        What has no line yet is trained by ``--workers`` processes at once.
        """
        known = {_frozen(line["key"]): float(line["miou"]) for line in self.results()}
        new = {_frozen(item[0]): item for item in wanted if _frozen(item[0]) not in known}
        options = self.options
        with ProcessPoolExecutor(
            options.workers, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)
        ) as pool:
            running = {
                pool.submit(_miou, network, self.training, seed, options.data is None): (
                    key,
                    network,
                )
                for key, network, seed in new.values()
            }
            for done in as_completed(running):
                key, network = running[done]
                known[_frozen(key)] = miou = done.result()
                line = {"key": key, "miou": miou, "architecture": json.loads(network.to_json())}
                with self.lines.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                print(f"{key}: {miou:.2f}%", flush=True)
        return [known[_frozen(key)] for key, _, _ in wanted]

    def results(self) -> list[dict[str, Any]]:
        """All lines so far."""
        if not self.lines.exists():
            return []
        return [json.loads(line) for line in self.lines.read_text().splitlines()]

    def write(self, name: str, found: dict[str, Any]) -> None:
        """A study's numbers, on the screen and in a file."""
        text = json.dumps(found, indent=1)
        (self.out / f"{name}.json").write_text(text + "\n")
        print(text)


def _frozen(key: Key) -> frozenset[tuple[str, Any]]:
    return frozenset(key.items())


def _miou(network: Architecture, settings: TrainSettings, seed: int, is_generated: bool) -> float:
    """mIoU of one training, a percentage."""
    settings = settings.model_copy(update={"seed": seed})
    images = settings.data
    if is_generated:
        counts = (images.train_images, images.validation_images, 0)
        data = open_data("street-scenes", size=images.image_size, counts=counts, seed=1000)
    else:
        data = checked_data(images).data
    with tempfile.TemporaryDirectory() as folder:
        module = trainable(network, data.classes.count, seed=seed)
        return 100 * Training(module, data, settings, Path(folder)).run().last_mean_iou


def _setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def random_networks(
    problem: SearchProblem, ms: float, seed: int
) -> Iterator[tuple[str, Architecture]]:
    """Endless networks within the tolerance of a latency, of both kinds in turn."""
    rng = random.Random(f"random networks/{seed}")
    students = replace(
        problem.space,
        widths=problem.student_widths,
        stem_head_widths=(problem.student_end,),
    )
    while True:
        drawn = (students.sample(rng) for _ in range(TRIES))
        near = (n for n in drawn if abs(problem.price(n) / ms - 1) <= TOLERANCE)
        if (network := next(near, None)) is None:
            raise SystemExit(f"the sampler has no network of {ms:.4g} ms")
        yield KINDS[0], network
        fits = (_fit_of_random_logits(problem, ms, rng) for _ in range(TRIES))
        yield KINDS[1], next(fit for fit in fits if fit is not None)


def _fit_of_random_logits(
    problem: SearchProblem, ms: float, rng: random.Random
) -> Architecture | None:
    relaxed = problem.student(0)
    drawn = torch.Generator().manual_seed(rng.getrandbits(63))
    with torch.no_grad():
        for parameter in relaxed.parameters():
            parameter.normal_(generator=drawn)
    fit = Fitter(relaxed, rng.choice(problem.branch_sets), problem.price).fit(ms, TOLERANCE)
    return fit.architecture if abs(fit.latency_ms / ms - 1) <= TOLERANCE else None


def compare_with_random(study: Study) -> None:
    """Searched networks of each method against random ones.

    All methods have one target, and are compared with the same random networks.
    """
    options = study.options
    seeds = range(options.first, options.first + options.seeds)
    networks = [_compared_networks(study, seed) for seed in seeds]
    found: list[list[list[float]]] = []  # (T, S, methods + R)
    for training in range(options.trainings):  # what is cut short has as many of each search
        wanted = [
            ({"seed": seed, "method": method, "training": training, "kind": kind}, net, training)
            for seed, own in zip(seeds, networks, strict=True)
            for method, kind, net in own
        ]
        found.append(np.array(study.trained(wanted)).reshape(options.seeds, -1).tolist())
        miou = np.array(found).swapaxes(0, 1)
        count = len(options.methods)
        means = {  # of all random networks of a kind
            kind: miou[:, :, count + first :: len(KINDS)].mean() for first, kind in enumerate(KINDS)
        }
        results = {}
        for place, name in enumerate(options.methods):
            own = np.concatenate([miou[:, :, [place]], miou[:, :, count:]], axis=2)
            over = {kind: float(own[:, :, 0].mean() - mean) for kind, mean in means.items()}
            results[name] = {**compared(own), "points_over": over}
        study.write("random", results)


def _compared_networks(study: Study, seed: int) -> list[tuple[str, str, Architecture]]:
    """Method, kind, network: of each method's search, then random ones of the first's latency."""
    methods, found = study.options.methods, []
    for method in methods:
        settings = study.settings(seed, **METHODS[method])
        student = study.search(f"{method}-{seed}", settings).student
        found.append((method, "searched", student))
    problem = SearchProblem(study.table, settings.space, settings.latency)
    drawn = random_networks(problem, found[0][2].ms, seed)
    first = itertools.islice(drawn, study.options.randoms)
    return [(method, kind, item.architecture) for method, kind, item in found] + [
        (methods[0], f"{kind} {number}", net) for number, (kind, net) in enumerate(first)
    ]


def correlate(study: Study) -> None:
    """Rank correlation of inherited and trained mIoU."""
    settings = study.settings(0)
    study.search("ranked-0", settings)
    problem = SearchProblem(study.table, settings.space, settings.latency)
    search = Search(problem, checked_data(settings.data).data, settings, study.out / "ranked-0")
    search.restore()
    sampler, rng = sampler_of(search), random.Random("correlation")
    scores: list[float] = []
    wanted: list[tuple[Key, Architecture, int]] = []
    while len(scores) < study.options.networks:
        found = sampler.towards(sampler.draw(rng), problem.target_ms, TOLERANCE, rng)
        if found is None:
            continue
        key = {"study": "correlation", "number": len(scores)}
        scores.append(100 * search.scorer().score(found.placed))
        wanted.append((key, found.placed.architecture, 0))
    trained = study.trained(wanted)
    study.write(
        "correlation",
        {
            "spearman": float(stats.spearmanr(scores, trained).statistic),
            "kendall": float(stats.kendalltau(scores, trained).statistic),
            "inherited": scores,
            "trained": trained,
        },
    )


def inherited(study: Study) -> None:
    """Rank correlation, for finished searches, of their scores and what "random" trained.

    Networks count once, with the mean over their trainings, whichever search they were drawn for.
    A network's cells are those of the supernet's first layers.
    """
    networks, miou = _means(study)
    found: dict[str, Any] = {"trained": miou, "inherited": {}, "spearman": {}, "kendall": {}}
    for folder in map(Path, study.options.runs):
        saved = json.loads((folder / "settings.json").read_text())
        settings = SearchSettings.model_validate(saved)
        problem = SearchProblem(study.table, settings.space, settings.latency)
        search = Search(problem, checked_data(settings.data).data, settings, folder)
        search.restore()
        scorer = search.scorer()
        scores = [
            100 * scorer.score(
                Placed(network, tuple(tuple(range(len(b.cells))) for b in network.branches))
            )
            for network in networks
        ]  # fmt: skip
        name = folder.name
        found["inherited"][name] = scores
        for kind, test in (("spearman", stats.spearmanr), ("kendall", stats.kendalltau)):
            rank = test(scores, miou)
            found[kind][name] = [float(rank.statistic), float(rank.pvalue)]
    study.write("inherited", found)
    draw_scores(found, study.out / "inherited.png")


def short(study: Study) -> None:
    """Rank correlation of a short training and what "random" trained; one training of each."""
    networks, miou = _means(study)
    study.lines = study.out / "short.jsonl"
    wanted: list[tuple[Key, Architecture, int]] = [
        ({"study": "short", "number": number}, network, 0)
        for number, network in enumerate(networks)
    ]
    found = study.trained(wanted)
    rank = stats.spearmanr(found, miou)
    study.write(
        "short",
        {"spearman": [float(rank.statistic), float(rank.pvalue)], "short": found, "trained": miou},
    )


def _means(study: Study) -> tuple[list[Architecture], list[float]]:
    """Networks that "random" trained, and their mIoU, the mean over all trainings, percentages."""
    trained: dict[str, list[float]] = {}
    for line in study.results():
        trained.setdefault(json.dumps(line["architecture"], sort_keys=True), []).append(
            float(line["miou"])
        )
    networks = [Architecture.from_json(text) for text in trained]
    return networks, [float(np.mean(values)) for values in trained.values()]


def collapse(study: Study) -> None:
    """Where naive and decoupled penalties lead, with lambda held and with the controller."""
    rows = []
    for seed, (name, weights) in itertools.product(range(study.options.seeds), WEIGHTS.items()):
        for mode, more in (("fixed", FIXED), ("controller", {"rank": None})):
            chosen = {key.replace(".", "__"): value for key, value in more.items()}
            settings = study.settings(seed, latency__weights=weights, **chosen)
            found = study.search(f"{name}-{mode}-{seed}", settings)
            last = found.records[-1]
            derived_ms, _ = found.last_derived
            rows.append(
                {
                    "weights": name, "lambda": mode, "seed": seed, "derived_ms": derived_ms,
                    "expected_ms": last.expected_ms, "skip_share": last.skip_share,
                    "narrowest_share": last.narrowest_share,
                }
            )  # fmt: skip
    reach = SearchProblem(study.table, settings.space, settings.latency).reach
    study.write("collapse", {"fastest_ms": reach.fastest_ms, "runs": rows})


STUDIES = {
    "random": compare_with_random, "correlation": correlate, "inherited": inherited,
    "short": short, "collapse": collapse,
}  # fmt: skip


def main() -> None:
    """Run one study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("out")
    parser.add_argument("--table", required=True)
    parser.add_argument("--data")
    for name, value in (
        ("first", 0), ("seeds", 3), ("trainings", 5), ("randoms", 4), ("networks", 30),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    for name in ("--set", "--train-set"):
        parser.add_argument(name, action="append", default=[])
    parser.add_argument("--runs", nargs="+", default=[], help="folders of finished searches")
    parser.add_argument("--workers", type=int, default=2, help="processes that train")
    options = parser.parse_args()
    STUDIES[options.study](Study(options))


if __name__ == "__main__":
    main()
