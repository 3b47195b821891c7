"""How large the report page of a table is, and how soon a browser can be used with it.

    python tests/benchmarks/bench_report.py [TABLE] [--repeats 7]

Opens the page in headless Chromium, each time with a new profile. Printed are, from the start of
the navigation and as medians with their range: when the page can be used (``domInteractive``), when
it is loaded, when its last chart is drawn, and how long sorting its longest table takes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import Queue

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser import CHROMIUM, headless

from latlut.reports.page.collect import sections_of
from latlut.reports.page.write import page_text

_PROBE = """
<script>
addEventListener("load", () => setTimeout(function probe() {
  const charts = document.querySelectorAll(".chart");
  const drawn = document.querySelectorAll(".chart svg, .chart canvas, .chart img");
  if (drawn.length < charts.length) return setTimeout(probe, 5);
  const drawn_ms = performance.now();
  const sortable = (grid) => grid.querySelector("th button");
  const grids = [...document.querySelectorAll("table")].filter(sortable);
  const longest = grids.reduce((a, b) => a.rows.length < b.rows.length ? b : a);
  const start = performance.now();
  longest.querySelectorAll("th button")[1].click();
  longest.getBoundingClientRect();
  const navigation = performance.getEntriesByType("navigation")[0];
  navigator.sendBeacon("http://127.0.0.1:PORT", JSON.stringify({
    interactive_ms: navigation.domInteractive, loaded_ms: navigation.loadEventStart,
    drawn_ms, sort_ms: performance.now() - start, rows: longest.rows.length }));
}, 0));
</script>
"""


def opened(page: Path, found: Queue[dict[str, float]]) -> dict[str, float]:
    """What one visit's probe tells."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # With a port to be debugged by it stays open once the page is loaded.
        words = headless(Path(profile), "--remote-debugging-port=0", page.as_uri())
        with subprocess.Popen(words, stderr=subprocess.DEVNULL) as browser:
            try:
                return found.get(timeout=60)
            finally:
                browser.kill()
                browser.wait()


def main() -> None:
    """Print the page's size and times."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("table", nargs="?", default="epyc4-onnxruntime-fp32")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    if CHROMIUM is None:
        raise SystemExit("Chromium is not installed")
    found: Queue[dict[str, float]] = Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    text = page_text(sections_of([options.table]), options.table)
    head, tail = text.rsplit("</body>", 1)
    port = server.server_address[1]
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(f"{head}{_PROBE.replace('PORT', str(port))}</body>{tail}")
        visits = [opened(page, found) for _ in range(options.repeats)]
    megabytes, rows = len(text.encode()) / 1e6, visits[0]["rows"]
    print(f"{options.table}: {megabytes:.2f} MB, longest table {rows:.0f} rows")
    for name in ("interactive_ms", "loaded_ms", "drawn_ms", "sort_ms"):
        values = [visit[name] for visit in visits]
        median, low, high = statistics.median(values), min(values), max(values)
        print(f"  {name:15} {median:7.0f}  ({low:.0f} to {high:.0f})")


if __name__ == "__main__":
    main()
