"""The table file's schema: SQLite tables, views and the migrations that make them.

Each change of the schema is one named migration; sqlite-utils applies the missing ones, each in
its own transaction. A file whose migrations this version does not know is newer than this
version and is refused. A view is made by the step that last changed it.
"""

from __future__ import annotations

from sqlite_utils import Database, Migrations

#: PRAGMA application_id of a latlut table: "llut" in ASCII.
APPLICATION_ID = 0x6C6C7574

migrations = Migrations("latlut")


def _run(db: Database, statements: str) -> None:
    """One by one: an SQLite script would commit the transaction that a step runs in."""
    for statement in filter(str.strip, statements.split(";\n")):
        db.conn.execute(statement)


@migrations()
def m001_initial(db: Database) -> None:
    """Identity, op specs, runs, passes, measurements, entries, failures, validations, views."""
    _run(db, _INITIAL)
    db.conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")


@migrations()
def m002_engine_options(db: Database) -> None:
    """The engine's options as a part of the identity."""
    db.conn.execute("ALTER TABLE identity ADD COLUMN engine_options TEXT NOT NULL DEFAULT ''")


@migrations()
def m003_gpus_and_builds(db: Database) -> None:
    """States of the GPU, the device of a pass, builds and what they add to an entry's error."""
    _run(db, _GPUS_AND_BUILDS)


@migrations()
def m004_differences(db: Database) -> None:
    """Readings that are differences of two latencies: zero and below, in tables of that mode only.

    SQLite cannot drop a CHECK: both tables are made anew without it, and triggers that know the
    table's mode take its place.
    """
    _run(db, _DIFFERENCES)


@migrations()
def m005_calibrations(db: Database) -> None:
    """Calibrations; what a validation measured at, and each network's readings."""
    _run(db, _CALIBRATIONS)


@migrations()
def m006_cpu_share(db: Database) -> None:
    """The share of the CPU that a measurement got."""
    db.conn.execute("ALTER TABLE measurements ADD COLUMN cpu_share REAL")


@migrations()
def m007_launches(db: Database) -> None:
    """How runs are launched on a GPU, and what share of a run the host takes for it."""
    _run(db, _LAUNCHES)


@migrations()
def m008_devices(db: Database) -> None:
    """Passes in quarantine, and what devices add to an entry's error."""
    _run(db, _DEVICES)


@migrations()
def m009_predictions(db: Database) -> None:
    """Entries that were predicted, from how many measured ones; NULL of measured entries."""
    _run(db, _PREDICTIONS)


@migrations()
def m010_subgraphs(db: Database) -> None:
    """The graphs of pieces that were cut from ONNX files."""
    _run(db, _SUBGRAPHS)


@migrations()
def m011_disturbed(db: Database) -> None:
    """The share of the CPU that entries and validations were measured with, where people look."""
    _run(db, _DISTURBED)


@migrations()
def m012_network_view(db: Database) -> None:
    """Networks that were measured, beside their estimates."""
    _run(db, _NETWORK_VIEW)


_INITIAL = """
CREATE TABLE identity (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    target TEXT NOT NULL, device_model TEXT NOT NULL, power_mode TEXT NOT NULL,
    driver TEXT NOT NULL, engine TEXT NOT NULL, engine_version TEXT NOT NULL,
    precision TEXT NOT NULL, threads INTEGER NOT NULL, mode TEXT NOT NULL,
    statistic TEXT NOT NULL, protocol_version TEXT NOT NULL, created_at TEXT NOT NULL
);
CREATE TABLE op_specs (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,
    in_channels INTEGER NOT NULL, out_channels INTEGER NOT NULL, stride INTEGER NOT NULL,
    height INTEGER NOT NULL, width INTEGER NOT NULL, batch INTEGER NOT NULL, options TEXT NOT NULL,
    macs INTEGER, params INTEGER, moved_bytes INTEGER
);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, started_at TEXT NOT NULL, ended_at TEXT,
    status TEXT NOT NULL, plan TEXT, plan_hash TEXT, space TEXT, settings TEXT NOT NULL,
    environment TEXT NOT NULL, environment_end TEXT, seconds TEXT, latlut_version TEXT NOT NULL
);
CREATE TABLE passes (
    id INTEGER PRIMARY KEY, run_id INTEGER NOT NULL REFERENCES runs(id),
    pass_index INTEGER NOT NULL, started_at TEXT NOT NULL, speed_factor REAL, speed_error REAL
);
CREATE TABLE sentinel_readings (
    id INTEGER PRIMARY KEY, pass_id INTEGER NOT NULL REFERENCES passes(id),
    op_spec_id INTEGER NOT NULL REFERENCES op_specs(id), group_index INTEGER NOT NULL,
    at TEXT NOT NULL, reading_ms REAL NOT NULL CHECK (reading_ms > 0)
);
CREATE TABLE measurements (
    id INTEGER PRIMARY KEY, op_spec_id INTEGER NOT NULL REFERENCES op_specs(id),
    pass_id INTEGER NOT NULL REFERENCES passes(id), group_index INTEGER,
    at TEXT NOT NULL, n INTEGER NOT NULL, reading_ms REAL NOT NULL CHECK (reading_ms > 0),
    min_ms REAL, p10_ms REAL, median_ms REAL,
    p90_ms REAL, max_ms REAL, ci_low_ms REAL, ci_high_ms REAL, warmup_runs INTEGER,
    is_steady INTEGER, requeues INTEGER NOT NULL DEFAULT 0, parity REAL,
    samples BLOB,
    UNIQUE (op_spec_id, pass_id)
);
CREATE TABLE entries (
    op_spec_id INTEGER PRIMARY KEY REFERENCES op_specs(id),
    latency_ms REAL NOT NULL CHECK (latency_ms > 0), ci_low_ms REAL, ci_high_ms REAL,
    own_error REAL, passes INTEGER NOT NULL, n INTEGER NOT NULL, roofline_ms REAL,
    warnings TEXT NOT NULL DEFAULT '', updated_at TEXT NOT NULL
);
CREATE TABLE failures (
    op_spec_id INTEGER PRIMARY KEY REFERENCES op_specs(id), run_id INTEGER REFERENCES runs(id),
    at TEXT NOT NULL, message TEXT NOT NULL
);
CREATE TABLE validations (
    id INTEGER PRIMARY KEY, at TEXT NOT NULL, networks INTEGER NOT NULL, seed INTEGER NOT NULL,
    sampler TEXT NOT NULL, settings TEXT NOT NULL, environment TEXT NOT NULL,
    agreement TEXT NOT NULL, latlut_version TEXT NOT NULL
);
CREATE TABLE validation_networks (
    validation_id INTEGER NOT NULL REFERENCES validations(id), position INTEGER NOT NULL,
    architecture TEXT NOT NULL, estimated_ms REAL NOT NULL, ci_low_ms REAL, ci_high_ms REAL,
    measured_first_ms REAL NOT NULL, measured_second_ms REAL NOT NULL,
    PRIMARY KEY (validation_id, position)
);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE INDEX measurements_pass ON measurements(pass_id);
CREATE VIEW failed AS
    SELECT op_specs.key AS op_spec, at, message FROM failures
        JOIN op_specs ON op_specs.id = op_spec_id;
"""

_GPUS_AND_BUILDS = """
ALTER TABLE passes ADD COLUMN device TEXT NOT NULL DEFAULT '';
ALTER TABLE measurements ADD COLUMN build_index INTEGER NOT NULL DEFAULT 0;
ALTER TABLE entries ADD COLUMN builds INTEGER NOT NULL DEFAULT 1;
ALTER TABLE entries ADD COLUMN build_error REAL;
ALTER TABLE entries ADD COLUMN build_sd REAL;
ALTER TABLE entries ADD COLUMN pass_sd REAL;
CREATE TABLE gpu_states (
    id INTEGER PRIMARY KEY, run_id INTEGER NOT NULL REFERENCES runs(id),
    pass_id INTEGER REFERENCES passes(id), group_index INTEGER,
    phase TEXT NOT NULL CHECK (phase IN ('before', 'group', 'after')), at TEXT NOT NULL,
    device TEXT NOT NULL, sm_mhz INTEGER, memory_mhz INTEGER, temperature_c INTEGER,
    power_w REAL, power_limit_w REAL, throttle_reasons TEXT, other_processes TEXT,
    performance_state INTEGER, is_persistent INTEGER, is_disturbed INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX gpu_states_group ON gpu_states(pass_id, group_index);
CREATE VIEW gpu_log AS
    SELECT gpu_states.run_id AS run, gpu_states.device, pass_index, group_index, phase, at,
        sm_mhz, memory_mhz, temperature_c, power_w, power_limit_w, throttle_reasons,
        other_processes, performance_state, is_disturbed
    FROM gpu_states LEFT JOIN passes ON passes.id = pass_id ORDER BY gpu_states.id;
"""

_LAUNCHES = """
ALTER TABLE measurements ADD COLUMN host_share REAL;
ALTER TABLE measurements ADD COLUMN launch TEXT;
ALTER TABLE entries ADD COLUMN host_share REAL;
ALTER TABLE entries ADD COLUMN launch TEXT;
CREATE VIEW launches AS
    SELECT op_specs.key AS op_spec, round(latency_ms, 5) AS latency_ms, launch,
        round(host_share, 3) AS host_share
    FROM entries JOIN op_specs ON op_specs.id = entries.op_spec_id WHERE launch IS NOT NULL;
"""

_CALIBRATIONS = """
ALTER TABLE validations ADD COLUMN input_size TEXT;
ALTER TABLE validations ADD COLUMN batch INTEGER;
ALTER TABLE validation_networks ADD COLUMN plain_ms REAL;
ALTER TABLE validation_networks ADD COLUMN readings TEXT;
CREATE TABLE calibrations (
    id INTEGER PRIMARY KEY, at TEXT NOT NULL, version INTEGER NOT NULL, networks INTEGER NOT NULL,
    seed INTEGER NOT NULL, model TEXT NOT NULL, scores TEXT NOT NULL, latlut_version TEXT NOT NULL
);
CREATE TABLE calibration_networks (
    calibration_id INTEGER NOT NULL REFERENCES calibrations(id), number INTEGER NOT NULL,
    architecture TEXT NOT NULL, source TEXT NOT NULL, validation_id INTEGER NOT NULL,
    position INTEGER NOT NULL, is_fitted INTEGER NOT NULL,
    PRIMARY KEY (calibration_id, number)
);
"""

_DIFFERENCES = """
DROP VIEW IF EXISTS suspects;
DROP VIEW IF EXISTS latencies;
DROP VIEW IF EXISTS readings;
DROP VIEW IF EXISTS run_log;
CREATE TABLE new_measurements (
    id INTEGER PRIMARY KEY, op_spec_id INTEGER NOT NULL REFERENCES op_specs(id),
    pass_id INTEGER NOT NULL REFERENCES passes(id), group_index INTEGER,
    at TEXT NOT NULL, n INTEGER NOT NULL, reading_ms REAL NOT NULL,
    min_ms REAL, p10_ms REAL, median_ms REAL,
    p90_ms REAL, max_ms REAL, ci_low_ms REAL, ci_high_ms REAL, warmup_runs INTEGER,
    is_steady INTEGER, requeues INTEGER NOT NULL DEFAULT 0, parity REAL,
    samples BLOB, build_index INTEGER NOT NULL DEFAULT 0,
    with_ms REAL CHECK (with_ms > 0), without_ms REAL CHECK (without_ms > 0),
    without_samples BLOB, turn_sizes TEXT,
    UNIQUE (op_spec_id, pass_id)
);
INSERT INTO new_measurements SELECT id, op_spec_id, pass_id, group_index, at, n, reading_ms, min_ms,
    p10_ms, median_ms, p90_ms, max_ms, ci_low_ms, ci_high_ms, warmup_runs, is_steady, requeues,
    parity, samples, build_index, NULL, NULL, NULL, NULL FROM measurements;
DROP TABLE measurements;
ALTER TABLE new_measurements RENAME TO measurements;
CREATE INDEX measurements_pass ON measurements(pass_id);
CREATE TABLE new_entries (
    op_spec_id INTEGER PRIMARY KEY REFERENCES op_specs(id),
    latency_ms REAL NOT NULL, ci_low_ms REAL, ci_high_ms REAL, own_error REAL,
    passes INTEGER NOT NULL, n INTEGER NOT NULL, roofline_ms REAL,
    warnings TEXT NOT NULL DEFAULT '', updated_at TEXT NOT NULL,
    builds INTEGER NOT NULL DEFAULT 1, build_error REAL, build_sd REAL, pass_sd REAL,
    own_error_ms REAL
);
INSERT INTO new_entries SELECT op_spec_id, latency_ms, ci_low_ms, ci_high_ms, own_error, passes, n,
    roofline_ms, warnings, updated_at, builds, build_error, build_sd, pass_sd,
    own_error * latency_ms FROM entries;
DROP TABLE entries;
ALTER TABLE new_entries RENAME TO entries;
CREATE TRIGGER measurements_positive BEFORE INSERT ON measurements
    WHEN NEW.reading_ms <= 0 AND (SELECT mode FROM identity) IS NOT 'in-context'
    BEGIN SELECT RAISE(ABORT, 'a reading must be above 0 ms: reading_ms > 0'); END;
CREATE TRIGGER entries_positive BEFORE INSERT ON entries
    WHEN NEW.latency_ms <= 0 AND (SELECT mode FROM identity) IS NOT 'in-context'
    BEGIN SELECT RAISE(ABORT, 'a latency must be above 0 ms: latency_ms > 0'); END;
CREATE TRIGGER measurements_stay_positive BEFORE UPDATE OF reading_ms ON measurements
    WHEN NEW.reading_ms <= 0 AND (SELECT mode FROM identity) IS NOT 'in-context'
    BEGIN SELECT RAISE(ABORT, 'a reading must be above 0 ms: reading_ms > 0'); END;
CREATE TRIGGER entries_stay_positive BEFORE UPDATE OF latency_ms ON entries
    WHEN NEW.latency_ms <= 0 AND (SELECT mode FROM identity) IS NOT 'in-context'
    BEGIN SELECT RAISE(ABORT, 'a latency must be above 0 ms: latency_ms > 0'); END;
CREATE VIEW run_log AS
    SELECT id, kind, status, started_at, ended_at, plan, latlut_version,
        json_extract(environment, '$.host') AS host,
        json_extract(seconds, '$.total') AS seconds,
        (SELECT count(*) FROM measurements JOIN passes ON passes.id = pass_id
            WHERE passes.run_id = runs.id) AS measurements
    FROM runs;
"""

_SUBGRAPHS = """
CREATE TABLE subgraphs (digest TEXT PRIMARY KEY, label TEXT NOT NULL, graph BLOB NOT NULL);
"""

_DEVICES = """
DROP VIEW IF EXISTS suspects;
DROP VIEW IF EXISTS latencies;
DROP VIEW IF EXISTS readings;
ALTER TABLE passes ADD COLUMN quarantine TEXT;
ALTER TABLE entries ADD COLUMN devices INTEGER NOT NULL DEFAULT 1;
ALTER TABLE entries ADD COLUMN device_error REAL;
ALTER TABLE entries ADD COLUMN device_sd REAL;
CREATE VIEW latencies AS
    SELECT op_specs.key AS op_spec, kind, in_channels, out_channels, stride, height, width, batch,
        options, round(latency_ms, 5) AS latency_ms, round(ci_low_ms, 5) AS ci_low_ms,
        round(ci_high_ms, 5) AS ci_high_ms,
        round(50.0 * (ci_high_ms - ci_low_ms) / nullif(abs(latency_ms), 0), 2) AS ci_percent,
        passes, n, builds, round(100 * build_error, 2) AS build_percent,
        round(100 * build_sd, 2) AS build_sd_percent, round(100 * pass_sd, 2) AS pass_sd_percent,
        devices, round(100 * device_error, 2) AS device_percent,
        round(100 * device_sd, 2) AS device_sd_percent,
        round(roofline_ms, 5) AS roofline_ms,
        CASE WHEN latency_ms > 0 THEN round(macs / latency_ms / 1e6, 2) END AS gmacs_per_s, warnings
    FROM entries JOIN op_specs ON op_specs.id = entries.op_spec_id;
CREATE VIEW suspects AS
    SELECT * FROM latencies WHERE warnings <> '' ORDER BY ci_percent DESC;
CREATE VIEW readings AS
    SELECT op_specs.key AS op_spec, runs.id AS run, pass_index, device, build_index, group_index,
        measurements.at, reading_ms, with_ms, without_ms, n, min_ms, p10_ms, median_ms, p90_ms,
        max_ms, ci_low_ms, ci_high_ms, is_steady, requeues, speed_factor,
        quarantine
    FROM measurements JOIN op_specs ON op_specs.id = op_spec_id
        JOIN passes ON passes.id = pass_id JOIN runs ON runs.id = run_id;
"""

_PREDICTIONS = """
DROP VIEW IF EXISTS suspects;
DROP VIEW IF EXISTS latencies;
ALTER TABLE entries ADD COLUMN predicted_from INTEGER;
CREATE VIEW latencies AS
    SELECT op_specs.key AS op_spec, kind, in_channels, out_channels, stride, height, width, batch,
        options, round(latency_ms, 5) AS latency_ms, round(ci_low_ms, 5) AS ci_low_ms,
        round(ci_high_ms, 5) AS ci_high_ms,
        round(50.0 * (ci_high_ms - ci_low_ms) / nullif(abs(latency_ms), 0), 2) AS ci_percent,
        passes, n, builds, round(100 * build_error, 2) AS build_percent,
        round(100 * build_sd, 2) AS build_sd_percent, round(100 * pass_sd, 2) AS pass_sd_percent,
        devices, round(100 * device_error, 2) AS device_percent,
        round(100 * device_sd, 2) AS device_sd_percent,
        round(roofline_ms, 5) AS roofline_ms,
        CASE WHEN latency_ms > 0 THEN round(macs / latency_ms / 1e6, 2) END AS gmacs_per_s,
        warnings, predicted_from
    FROM entries JOIN op_specs ON op_specs.id = entries.op_spec_id;
CREATE VIEW suspects AS
    SELECT * FROM latencies WHERE warnings <> '' ORDER BY ci_percent DESC;
"""

_DISTURBED = """
DROP VIEW IF EXISTS suspects;
DROP VIEW IF EXISTS latencies;
DROP VIEW IF EXISTS readings;
ALTER TABLE entries ADD COLUMN cpu_share REAL;
UPDATE entries SET cpu_share = (SELECT avg(cpu_share) FROM measurements
    WHERE measurements.op_spec_id = entries.op_spec_id);
ALTER TABLE validations ADD COLUMN cpu_share REAL;
UPDATE validations SET cpu_share = json_extract(agreement, '$.cpu_share');
CREATE VIEW latencies AS
    SELECT op_specs.key AS op_spec, kind, in_channels, out_channels, stride, height, width, batch,
        options, round(latency_ms, 5) AS latency_ms, round(ci_low_ms, 5) AS ci_low_ms,
        round(ci_high_ms, 5) AS ci_high_ms,
        round(50.0 * (ci_high_ms - ci_low_ms) / nullif(abs(latency_ms), 0), 2) AS ci_percent,
        passes, n, builds, round(100 * build_error, 2) AS build_percent,
        round(100 * build_sd, 2) AS build_sd_percent, round(100 * pass_sd, 2) AS pass_sd_percent,
        devices, round(100 * device_error, 2) AS device_percent,
        round(100 * device_sd, 2) AS device_sd_percent,
        round(roofline_ms, 5) AS roofline_ms,
        CASE WHEN latency_ms > 0 THEN round(macs / latency_ms / 1e6, 2) END AS gmacs_per_s,
        round(cpu_share, 3) AS cpu_share, warnings, predicted_from
    FROM entries JOIN op_specs ON op_specs.id = entries.op_spec_id;
CREATE VIEW suspects AS
    SELECT * FROM latencies WHERE warnings <> '' ORDER BY ci_percent DESC;
CREATE VIEW readings AS
    SELECT op_specs.key AS op_spec, runs.id AS run, pass_index, device, build_index, group_index,
        measurements.at, reading_ms, with_ms, without_ms, n, min_ms, p10_ms, median_ms, p90_ms,
        max_ms, ci_low_ms, ci_high_ms, is_steady, requeues, speed_factor,
        round(cpu_share, 3) AS cpu_share, quarantine
    FROM measurements JOIN op_specs ON op_specs.id = op_spec_id
        JOIN passes ON passes.id = pass_id JOIN runs ON runs.id = run_id;
CREATE VIEW validation_log AS
    SELECT id, at, networks, round(json_extract(agreement, '$.r'), 4) AS r,
        round(json_extract(agreement, '$.mape_percent'), 2) AS mape_percent,
        round(json_extract(agreement, '$.r12'), 4) AS r12, round(cpu_share, 3) AS cpu_share,
        coalesce(cpu_share < 0.95, 0) OR coalesce(json_extract(agreement, '$.r12') < 0.9, 0)
            AS is_disturbed
    FROM validations;
"""

_NETWORK_VIEW = """
CREATE VIEW networks AS
    SELECT validation_id AS validation, position AS number, validations.at,
        validations.input_size, round(estimated_ms, 5) AS estimated_ms,
        round(ci_low_ms, 5) AS ci_low_ms, round(ci_high_ms, 5) AS ci_high_ms,
        round(measured_ms, 5) AS measured_ms,
        round(100 * (estimated_ms / measured_ms - 1), 2) AS error_percent,
        round(100 * (measured_first_ms / measured_second_ms - 1), 2) AS repeat_percent,
        measured_ms BETWEEN ci_low_ms AND ci_high_ms AS is_inside,
        round(100 * (plain_ms / measured_ms - 1), 2) AS plain_error_percent,
        json(architecture) AS architecture
    FROM (SELECT *, (measured_first_ms + measured_second_ms) / 2 AS measured_ms
            FROM validation_networks) AS measured
        JOIN validations ON validations.id = validation_id
    ORDER BY validation_id DESC, position;
"""
