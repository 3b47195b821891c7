"""Operators: what can be built, exported and run; one registry.

from latlut.operators import Option, register

@register("squeeze_excite", options={"reduction": Option()})
def squeeze_excite(spec: OpSpec) -> nn.Module:
    return MySqueezeExcite(spec.in_channels, int(spec.option("reduction") or 4))
"""

import latlut.operators.builtin  # registers the operators of latlut's own
import latlut.operators.builtin_blocks  # and more of them
import latlut.operators.subgraph_store  # noqa: F401  # and the kinds of pieces of ONNX graphs
from latlut.operators.registry import Option, register

__all__ = ["Option", "register"]
