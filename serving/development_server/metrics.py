"""Counts and latencies, in Prometheus' text format under TensorFlow Serving's names.

`prometheus_client` is not used: it writes a counter as `..._total`, and TensorFlow Serving's
dashboards ask for `:tensorflow:serving:request_count`.
"""

import bisect
import threading
from collections import defaultdict

import grpc

_PREFIX = ":tensorflow:serving:"
_LATENCY_BOUNDS = tuple(10 * 1.8**power for power in range(33))
"""Upper bounds of the buckets, in microseconds, up to about 20 minutes."""

OTHER_MODEL = "(not served)"
"""Stands for every model name that is not served: clients must not be able to grow the page."""

Labels = tuple[tuple[str, str], ...]


class _Histogram:
    """Observations of one set of labels."""

    def __init__(self) -> None:
        self.buckets = [0] * (len(_LATENCY_BOUNDS) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.buckets[bisect.bisect_left(_LATENCY_BOUNDS, value)] += 1
        self.sum += value


class Metrics:
    """Collects what the server has answered. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[Labels, int] = defaultdict(int)
        self._malformed: dict[Labels, int] = defaultdict(int)
        self._latencies: dict[Labels, _Histogram] = defaultdict(_Histogram)

    def record(
        self,
        model_name: str,
        api: str,
        entrypoint: str,
        code: grpc.StatusCode,
        seconds: float,
    ) -> None:
        """Counts an answered request; the latency is kept of successful ones.

        Args:
            model_name: The model, `OTHER_MODEL` if it is not served.
            api: `Predict`, `Classify`, `Regress` or `MultiInference`.
            entrypoint: `GRPC` or `REST`.
            code: The outcome.
            seconds: How long it took.
        """
        with self._lock:
            self._counts[("model_name", model_name), ("status", code.name)] += 1
            if code is grpc.StatusCode.OK:
                labels = (("model_name", model_name), ("API", api), ("entrypoint", entrypoint))
                self._latencies[labels].add(seconds * 1e6)

    def record_malformed(self, entrypoint: str) -> None:
        """Counts a message that names no model because it cannot be read at all."""
        with self._lock:
            self._malformed[(("entrypoint", entrypoint),)] += 1

    def page(self) -> str:
        """Returns all of it in Prometheus' text format."""
        with self._lock:
            lines = [f"# TYPE {_PREFIX}request_count counter"]
            lines += _scalars("request_count", self._counts)
            # A name of our own: what TensorFlow Serving's gRPC library refuses, nobody counts.
            lines.append("# TYPE :bivrec:serving:malformed_request_count counter")
            for labels, count in sorted(self._malformed.items()):
                lines.append(f":bivrec:serving:malformed_request_count{{{_text(labels)}}} {count}")
            lines.append(f"# TYPE {_PREFIX}request_latency histogram")
            for labels, histogram in sorted(self._latencies.items()):
                lines += _buckets("request_latency", _text(labels), histogram)
        return "\n".join(lines) + "\n"


def _scalars(name: str, values: dict[Labels, int]) -> list[str]:
    return [
        f"{_PREFIX}{name}{{{_text(labels)}}} {value}" for labels, value in sorted(values.items())
    ]


def _buckets(name: str, labels: str, histogram: _Histogram) -> list[str]:
    lines = []
    total = 0
    bounds = [*(f"{bound:g}" for bound in _LATENCY_BOUNDS), "+Inf"]
    for bound, count in zip(bounds, histogram.buckets, strict=True):
        total += count
        lines.append(f'{_PREFIX}{name}_bucket{{{labels},le="{bound}"}} {total}')
    lines.append(f"{_PREFIX}{name}_sum{{{labels}}} {histogram.sum:g}")
    lines.append(f"{_PREFIX}{name}_count{{{labels}}} {total}")
    return lines


def _text(labels: Labels) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
