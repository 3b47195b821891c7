"""Tables as an earlier version of latlut left them, with measurements in them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from latlut.opspec import OpSpec
from latlut.table.identity import Identity
from latlut.table.schema import migrations
from latlut.table.storage import connect_new
from latlut.table.table import LatencyTable
from latlut.table.writing import insert

#: The schema step that the tables lack, and all later ones.
FIRST_MISSING = "m003_gpus_and_builds"


def make_old_table(path: Path, identity: Identity, keys: Sequence[str]) -> None:
    """A table of two passes over the op specs ``keys``, the i-th with a latency of 1 + i ms."""
    with closing(LatencyTable(path, connect_new(path), is_writable=True)) as table:
        migrations.apply(table.db, stop_before=FIRST_MISSING)
        with table.writing() as db:
            at = {"started_at": "2025-01-01T00:00:00+00:00"}
            insert(db, "identity", id=1, **identity.to_dict(), created_at=at["started_at"])
            run_id = insert(
                db, "runs", kind="profile", **at, status="done", settings="{}", environment="{}",
                latlut_version="0.1",
            )  # fmt: skip
            passes = [
                insert(db, "passes", run_id=run_id, pass_index=index, **at) for index in range(2)
            ]
            for number, key in enumerate(keys):
                spec = OpSpec.parse(key)
                _, height, width = spec.inputs[-1]
                spec_id = insert(
                    db, "op_specs", key=spec.key, kind=spec.kind, in_channels=spec.in_channels,
                    out_channels=spec.out_channels, stride=spec.stride, height=height, width=width,
                    batch=spec.batch, options="{}",
                )  # fmt: skip
                ms = 1.0 + number
                for pass_id in passes:
                    insert(
                        db, "measurements", op_spec_id=spec_id, pass_id=pass_id, n=1,
                        at=at["started_at"], reading_ms=ms,
                    )  # fmt: skip
                insert(
                    db, "entries", op_spec_id=spec_id, latency_ms=ms, passes=2, n=2,
                    updated_at=at["started_at"],
                )  # fmt: skip
