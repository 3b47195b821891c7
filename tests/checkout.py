"""Where this checkout is, and the material beside it that tests use where a machine has it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Inputs from outside the project; tests that need one skip, with the reason, where it is absent.
SHARED = ROOT.parent / "shared"
AUTHORS_TABLE = SHARED / "fasterseg" / "latency_lookup_table.npy"
