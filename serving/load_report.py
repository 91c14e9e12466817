"""What a load test measured: figures, a table of every request, and a plot."""

import collections
import csv
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

PERCENTILES = (50, 90, 95, 99)
OK = "OK"


@dataclasses.dataclass(frozen=True)
class Sample:
    """One request.

    Attributes:
        start: Seconds from the beginning of the measurement to when it was due.
        latency: Seconds from when it was due to its answer.
        code: The gRPC status code; `NOT_SENT` if it was due, and never sent.
    """

    start: float
    latency: float
    code: str


@dataclasses.dataclass(frozen=True)
class Summary:
    """The figures of a measurement.

    Attributes:
        requests: How many requests were due.
        seconds: From the beginning to the last answer.
        codes: How many requests ended with each code, most frequent first.
        latencies: Milliseconds by `p50`, `p90`, `p95`, `p99` and `max`, of the requests that were
            answered; not a number if none was.
    """

    requests: int
    seconds: float
    codes: dict[str, int]
    latencies: dict[str, float]

    @property
    def throughput(self) -> float:
        """Answered requests per second."""
        return self.codes.get(OK, 0) / self.seconds if self.seconds else 0.0

    @property
    def error_rate(self) -> float:
        """The share of the requests that were not answered; 1 if there was no request at all."""
        return 1 - self.codes.get(OK, 0) / self.requests if self.requests else 1.0


def percentile(sorted_values: Sequence[float], percent: float) -> float:
    """Returns the smallest value that at least `percent` % of the values do not exceed."""
    if not sorted_values:
        return math.nan
    return sorted_values[max(0, math.ceil(len(sorted_values) * percent / 100) - 1)]


def summarise(samples: Sequence[Sample]) -> Summary:
    """Returns the figures of a measurement."""
    latencies = sorted(sample.latency * 1000 for sample in samples if sample.code == OK)
    return Summary(
        requests=len(samples),
        seconds=max((sample.start + sample.latency for sample in samples), default=0.0),
        codes=dict(collections.Counter(sample.code for sample in samples).most_common()),
        latencies={f"p{percent}": percentile(latencies, percent) for percent in PERCENTILES}
        | {"max": latencies[-1] if latencies else math.nan},
    )


def describe(summary: Summary) -> str:
    """Returns the figures as text."""
    latencies = "  ".join(f"{name} {value:.1f}" for name, value in summary.latencies.items())
    codes = "  ".join(f"{code} {count}" for code, count in summary.codes.items())
    return "\n".join(
        [
            f"requests    {summary.requests} in {summary.seconds:.1f} s",
            f"throughput  {summary.throughput:.1f} answers/s",
            f"latency ms  {latencies}",
            f"codes       {codes or 'none'}",
            f"error rate  {summary.error_rate:.4%}",
        ]
    )


def write_csv(samples: Sequence[Sample], path: Path) -> None:
    """Writes one row for each request, in the order in which they were due."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["due_seconds", "latency_ms", "code"])
        for sample in sorted(samples, key=lambda each: each.start):
            writer.writerow([f"{sample.start:.6f}", f"{sample.latency * 1000:.3f}", sample.code])


def write_plot(samples: Sequence[Sample], path: Path, title: str) -> None:
    """Draws latency, answers and errors over the seconds of the measurement, as a PNG.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    seconds: dict[int, list[Sample]] = collections.defaultdict(list)
    for sample in samples:
        seconds[int(sample.start)].append(sample)
    times = sorted(seconds)
    figure = Figure(figsize=(9, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for percent in (50, 99):
        values = [
            percentile(sorted(s.latency * 1000 for s in seconds[time] if s.code == OK), percent)
            for time in times
        ]
        above.plot(times, values, marker=".", label=f"p{percent}")
    above.set(ylabel="latency [ms]", yscale="log", title=title)
    above.legend()
    above.grid(alpha=0.3)
    codes = list(summarise(samples).codes)
    for code in codes:
        counts = [sum(sample.code == code for sample in seconds[time]) for time in times]
        below.plot(times, counts, marker=".", label=code)
    below.set(xlabel="due at [s]", ylabel="requests per second", ylim=(0, None))
    if codes:
        below.legend()
    below.grid(alpha=0.3)
    figure.savefig(path, format="png", dpi=120)
