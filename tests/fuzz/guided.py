"""Fuzz one reader, guided by coverage: python tests/fuzz/guided.py onnx --seconds 600

Ends with an error at the first input that raises anything but a LatlutError, takes more than 1 GB
beyond what Python and its libraries take, or 10 s; the input is kept in the folder of ``--corpus``.
Needs atheris.
"""

from __future__ import annotations

import argparse
import resource
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))
with atheris.instrument_imports(include=["latlut", "tomllib", "json", "pickletools", "csv"]):
    from fuzz.fuzz_readers import READERS, accepts, seeds_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--runs", type=int, default=-1, help="inputs at most")
    parser.add_argument("--corpus", type=Path, default=Path("corpus"))
    chosen = parser.parse_args()
    reader, folder = READERS[chosen.reader], chosen.corpus / chosen.reader
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(seeds_of(chosen.reader)):
        (folder / f"seed{number}").write_bytes(content)
    path = chosen.corpus / f"{chosen.reader}-now{reader.suffix}"
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

    def once(data: bytes) -> None:
        accepts(reader, path, data)

    longest = max(20_000, *map(len, seeds_of(chosen.reader)))
    limits = ["-timeout=10", f"-rss_limit_mb={before_mb + 1024}", f"-max_len={longest}"]
    limits += [f"-runs={chosen.runs}"]
    kept = f"-artifact_prefix={folder}-"
    ends = [f"-max_total_time={chosen.seconds}", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *limits, kept, *ends, str(folder)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
