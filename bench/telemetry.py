"""What telemetry costs: ``python -m bench.telemetry`` runs the worker without, with metrics, with traces, in turn."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import click

from bench import report
from bench.control import stub_running
from bench.machine import machine_facts
from bench.scenarios import Figures, Load, Settings, throughput
from bench.sides import OURS, pinned

SLOTS: Final = 50
_FIGURES: Final = ("tasks_per_s", "cpu_us_per_task")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="How often the sides take turns.")
@click.option("--seconds", type=click.FloatRange(0.5), default=8.0, show_default=True, help="Length of a measurement.")
@click.option("--output", type=click.Path(path_type=Path), help="Where the JSON goes (bench/results/telemetry.json).")
def main(rounds: int, seconds: float, output: Path | None) -> None:
    """Measure throughput and CPU of a task that only echoes, with telemetry off, with metrics, and with traces too."""
    placement = pinned()
    os.sched_setaffinity(0, placement.stub)
    settings = Settings(seconds=seconds, placement=placement)
    measured: dict[str, list[Figures]] = {}
    with stub_running(placement) as stub, _collector() as collector:
        on = {"WORKER_ENABLE_METRICS": "true"}
        sides: dict[str, dict[str, str]] = {
            "off": {},
            "metrics": on,
            "metrics and traces": on | {"OTEL_EXPORTER_OTLP_ENDPOINT": collector},
        }
        for turn in range(rounds):
            for name, env in sides.items():
                print(f"round {turn + 1}: {name}", file=sys.stderr, flush=True)
                figures = throughput(Load(SLOTS, env=env))(OURS, stub, settings)
                measured.setdefault(name, []).append({each: figures[each] for each in _FIGURES})
    medians = report.medians({"telemetry": measured})["telemetry"]
    for name, figures in medians.items():
        speed, cpu = (figures[each] for each in _FIGURES)
        times = cpu / medians["off"]["cpu_us_per_task"]
        click.echo(f"{name:20} {speed:8,.0f} tasks/s {cpu:6.0f} µs CPU/task  x {times:.2f}")
    found = {"machine": machine_facts(), "slots": SLOTS, "medians": medians, "rounds": measured}
    target = output or report.RESULTS / "telemetry.json"
    target.write_text(json.dumps(report.rounded(found), indent=1, ensure_ascii=False) + "\n")
    click.echo(f"written to {target}")


@contextmanager
def _collector() -> Generator[str]:
    """Provide the URL of something that takes spans and metrics over OTLP and forgets them."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named so by http.server
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    main()
