"""What the pages of a report are made of: Markdown tables, and pairs of labels compared."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from benchmarks.measured import Interval, Runs, paired
from bivrec_tf.models import MODEL_NAMES


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table, numbers to the right."""
    lines = [f"| {' | '.join(header)} |", "|---" + "|---:" * (len(header) - 1) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def title(metric: str) -> str:
    """Returns a metric's name as people write it."""
    name, _, k = metric.rpartition("_at_")
    known = {
        "ndcg": "NDCG",
        "recall": "Recall",
        "hit_rate": "Hit rate",
        "mrr": "MRR",
        "coverage": "Coverage",
    }
    return f"{known.get(name, name)}@{k}"


def ordered(labels: Mapping[str, Runs]) -> list[Runs]:
    """Returns runs of every label: models first, in the order in which they are known."""
    place = {label: number for number, label in enumerate(MODEL_NAMES)}
    return sorted(
        labels.values(), key=lambda runs: (place.get(runs.label, len(MODEL_NAMES)), runs.label)
    )


DIFFERENCE = ("difference", "95 % interval", "relative")
"""Titles of what a comparison says."""


class Compared(NamedTuple):
    """Two labels, or parts of their results, on the same users.

    Attributes:
      name: `first − second`.
      metric: Such as `ndcg_at_20`.
      difference: First minus second.
      relative: Of the second's mean, as text.
    """

    name: str
    metric: str
    difference: Interval
    relative: str

    def cells(self) -> list[str]:
        """Returns what stands below `DIFFERENCE`."""
        found = self.difference
        return [f"{found.mean:+.4f}", f"{found.low:+.4f} to {found.high:+.4f}", self.relative]


def compared(
    labels: Mapping[str, Runs], pairs: Iterable[tuple[str, str]], metrics: Sequence[str]
) -> list[Compared]:
    """Compares named labels, where both were run and have ranks.

    A side is a label, or with a part of its results, as in `bivrec/id_view`.
    """
    found = []
    for pair in pairs:
        sides = [name.partition("/") for name in pair]
        if any(label not in labels for label, _, _ in sides):
            continue
        first, second = (labels[label] for label, _, _ in sides)
        of_first, of_second = (f"test_{part}" if part else "test" for _, _, part in sides)
        for metric in metrics:
            difference = paired(first, second, metric, (of_first, of_second))
            if difference is not None:
                base = second.interval(of_second, metric)
                relative = f"{difference.mean / base.mean:+.1%}" if base and base.mean else ""
                found.append(Compared(" − ".join(pair), metric, difference, relative))
    return found


def differences_table(found: Iterable[Compared]) -> str:
    """Returns a row for every comparison."""
    rows = [[each.name, title(each.metric), *each.cells()] for each in found]
    return table(["", "metric", *DIFFERENCE], rows)
