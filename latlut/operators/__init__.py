"""Operators: what can be built, exported and run; one registry.

from latlut.operators import Option, register

@register("squeeze_excite", options={"reduction": Option()})
def squeeze_excite(spec: OpSpec) -> nn.Module:
    return MySqueezeExcite(spec.in_channels, int(spec.option("reduction") or 4))
"""

import latlut.operators.builtin
import latlut.operators.builtin_blocks  # noqa: F401  # both register operators of latlut's own
from latlut.operators.registry import Option, register

__all__ = ["Option", "register"]
