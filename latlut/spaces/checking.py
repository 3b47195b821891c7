"""What is wrong with a search space, said before anything is measured.

A space is somebody's own code. What it says in several ways must agree: its op specs with those of
its networks, a network's op specs with its graph, values with what is read back from them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from latlut.errors import LatlutError, SpecError
from latlut.operators.registry import check as check_operator
from latlut.opspec import IMAGE, Node, OpSpec, check_graph
from latlut.spaces.choices import Choices
from latlut.spaces.space import Space, SpaceNetwork

#: Networks that are drawn to look at them.
DRAWN = 5
_LISTED = 3

Answer = TypeVar("Answer")


def check_space(space: Space, input_size: tuple[int, int], batch: int = 1) -> tuple[OpSpec, ...]:
    """A space's op specs, after checking it; see the module.

    Args:
        space: latlut's or somebody's own.
        input_size: (height, width) of the image in pixels.
        batch: images per inference.

    Raises:
        SpecError: names the first thing that does not hold, and where.
        UnknownNameError: an op spec of an operator that is not registered.
    """
    name = space.name
    specs = _specs(name, "op_specs", lambda: space.op_specs(input_size, batch))
    if not specs:
        raise SpecError(f"the space {name!r}: op_specs gives nothing to measure")
    _check_specs(name, specs, batch)
    known = set(specs)
    _check_values(space, known, input_size, batch)
    if not isinstance(asked(name, "describe_sampler", space.describe_sampler), str):
        raise SpecError(f"the space {name!r}: describe_sampler gives a text")
    for place, network in enumerate(_drawn(space)):
        where = f"network {place} of sample_many({DRAWN}, 0)"
        own = check_network(space.name, network, input_size, batch, where)
        _refuse_unknown(name, own, known, where)
        _check_json(space, network, where, input_size)
    if (choices := choices_of(space, input_size, batch)) is not None:
        _refuse_unknown(name, choices.op_specs(), known, "choices")
    return specs


def check_network(
    name: str, network: SpaceNetwork, input_size: tuple[int, int], batch: int, where: str
) -> tuple[OpSpec, ...]:
    """A network's op specs, after comparing them with its graph.

    Args:
        name: of its space.
        where: which network it is, for messages.

    Raises:
        SpecError: a graph that does not fit together, or whose op specs are not ``op_specs()``.
    """
    title = f"the space {name!r}: {where}"
    nodes = asked(name, f"nodes of {where}", lambda: network.nodes(input_size, batch))
    if not isinstance(nodes, Sequence) or not all(isinstance(node, Node) for node in nodes):
        raise SpecError(
            f"{title}: nodes gives a list of latlut.opspec.Node, received {nodes!r:.80}"
        )
    specs = _specs(name, f"op_specs of {where}", lambda: network.op_specs(input_size, batch))
    try:
        check_graph(nodes)
    except SpecError as error:
        raise SpecError(f"{title}: {error}") from error
    _check_specs(name, specs, batch)
    images = {
        shape
        for node in nodes
        for source, shape in zip(node.inputs, node.spec.inputs, strict=True)
        if source == IMAGE
    }
    if len(images) != 1 or next(iter(images))[1:] != tuple(input_size):
        height, width = input_size
        raise SpecError(
            f"{title}: its nodes take the image, {IMAGE!r}, as {sorted(images)}; expected one "
            f"shape at {height}x{width}"
        )
    in_graph, listed = Counter(node.spec for node in nodes), Counter(specs)
    if in_graph != listed:
        only_graph, only_list = in_graph - listed, listed - in_graph
        raise SpecError(
            f"{title}: its graph and its operator configurations disagree"
            + _listing("\n  in nodes() alone: ", only_graph.elements())
            + _listing("\n  in op_specs() alone: ", only_list.elements())
        )
    return specs


def choices_of(space: Space, input_size: tuple[int, int], batch: int) -> Choices | None:
    """What a network of the space chooses; None where the space does not say.

    Raises:
        SpecError: its ``choices`` gives something else.
    """
    own = getattr(space, "choices", None)
    if own is None:
        return None
    found = asked(space.name, "choices", lambda: own(input_size, batch))
    if not isinstance(found, Choices):
        raise SpecError(
            f"the space {space.name!r}: choices gives a latlut.spaces.choices.Choices, received "
            f"{type(found).__name__}"
        )
    asked(space.name, "choices", found.op_specs)
    return found


def asked(name: str, what: str, call: Callable[[], Answer], is_plain: bool = False) -> Answer:
    """What somebody's own code answers; whatever it raises becomes SpecError.

    Args:
        name: of the space.
        what: is asked of it, for the message.
        is_plain: leave the code's own LatlutError as it is, where it speaks of a user's values.
    """
    try:
        return call()
    except LatlutError as error:
        if is_plain:
            raise
        raise SpecError(f"the space {name!r}: {what}: {error}") from error
    except (Exception, SystemExit) as error:
        raise SpecError(
            f"the space {name!r}: {what} raised {type(error).__name__}: {error}"
        ) from error


def _specs(name: str, what: str, call: Callable[[], Iterable[Any]]) -> tuple[OpSpec, ...]:
    found = asked(name, what, lambda: tuple(call()))
    wrong = [item for item in found if not isinstance(item, OpSpec)]
    if wrong:
        raise SpecError(
            f"the space {name!r}: {what} gives latlut.OpSpec, received {type(wrong[0]).__name__}"
        )
    return found


def _check_specs(name: str, specs: Iterable[OpSpec], batch: int) -> None:
    for spec in specs:
        check_operator(spec)
        if spec.batch != batch:
            raise SpecError(
                f"the space {name!r}: batch {batch} was asked for, {spec} has {spec.batch}: hand "
                "the batch on to OpSpec"
            )


def _drawn(space: Space) -> Sequence[SpaceNetwork]:
    """A few networks, drawn twice: the same seed gives the same, a smaller count the first."""

    def draw(count: int) -> list[SpaceNetwork]:
        found = asked(space.name, "sample_many", lambda: list(space.sample_many(count, 0)))
        if len(found) != count:
            raise SpecError(
                f"the space {space.name!r}: sample_many({count}, 0) gives {len(found)} networks"
            )
        for item in found:
            lacking = [n for n in ("nodes", "op_specs", "to_json") if not hasattr(item, n)]
            if lacking:
                raise SpecError(
                    f"the space {space.name!r}: a network of sample_many, "
                    f"{type(item).__name__}, lacks {', '.join(lacking)}"
                )
        return found

    networks = draw(DRAWN)
    texts, again = [
        [asked(space.name, "to_json", item.to_json) for item in drawn]
        for drawn in (networks, draw(DRAWN - 2))
    ]
    if texts[: len(again)] != again:
        raise SpecError(
            f"the space {space.name!r}: sample_many gives other networks for the same seed, or for "
            "a smaller count; draw from random.Random(seed), one network after the other"
        )
    return networks


def _check_json(
    space: Space, network: SpaceNetwork, where: str, input_size: tuple[int, int]
) -> None:
    name, text = space.name, network.to_json()
    try:
        values = json.loads(text)
    except (TypeError, ValueError) as error:
        raise SpecError(f"the space {name!r}: to_json of {where} is no JSON: {error}") from error
    if not isinstance(values, dict) or values.get("space") != name:
        raise SpecError(f'the space {name!r}: to_json of {where} has no "space": "{name}"')
    back = asked(name, "network_from_json", lambda: space.network_from_json(text))
    specs = asked(name, "network_from_json", lambda: list(back.op_specs(input_size)))
    if back.to_json() != text or specs != list(network.op_specs(input_size)):
        raise SpecError(
            f"the space {name!r}: network_from_json gives another network than {where}, whose "
            "to_json it was given"
        )


def _check_values(
    space: Space, known: set[OpSpec], input_size: tuple[int, int], batch: int
) -> None:
    name = space.name
    values = asked(name, "to_dict", space.to_dict)
    try:
        plain = json.loads(json.dumps(values))
    except (TypeError, ValueError) as error:
        raise SpecError(f"the space {name!r}: to_dict gives values for JSON: {error}") from error
    if not isinstance(plain, dict) or plain.get("name") != name:
        raise SpecError(f'the space {name!r}: to_dict has no "name": "{name}"')
    back = asked(name, "from_dict", lambda: type(space).from_dict(plain))
    again = asked(name, "from_dict", lambda: set(back.op_specs(input_size, batch)))
    if again != known:
        raise SpecError(
            f"the space {name!r}: what from_dict reads from to_dict has other operator "
            "configurations: every "
            "value that shapes the space belongs into to_dict"
        )


def _refuse_unknown(name: str, specs: Iterable[OpSpec], known: set[OpSpec], where: str) -> None:
    lacking = list(dict.fromkeys(spec for spec in specs if spec not in known))
    if lacking:
        raise SpecError(
            f"the space {name!r}: {where} needs {len(lacking)} operator configurations "
            "that op_specs of the "
            "space does not name, so that they would not be measured" + _listing(": ", lacking)
        )


def _listing(title: str, specs: Iterable[OpSpec]) -> str:
    found = list(dict.fromkeys(specs))
    rest = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return title + "; ".join(map(str, found[:_LISTED])) + rest if found else ""
