"""Operators: what can be built, exported and run; one registry."""

from latlut.operators.builtin import *  # noqa: F403
