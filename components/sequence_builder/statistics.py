"""What must be known about all users before one can be split: cut-off times and popularity."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import apache_beam as beam

from bivrec_tf import features
from components.sequence_builder.user_sequences import Cuts, Event

# Two-step selection: times are first counted in buckets of 2**16 seconds (18 hours), then by the
# second in the buckets that hold the cuts. Exact, and never more than some ten thousand counts.
_BUCKET_BITS = 16

HEAD_SHARE = 0.5
MIDDLE_SHARE = 0.8


def popularity_classes(counts: Mapping[bytes, int]) -> dict[bytes, str]:
    """Returns item -> `head`, `middle` or `tail`, as `features.TARGET_POPULARITIES` defines them.

    Items are ranked by count, ties by id; the item that reaches a share still belongs to it.

    Args:
        counts: item -> number of training interactions, all positive.
    """
    total = sum(counts.values())
    classes: dict[bytes, str] = {}
    before = 0
    for item, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        if before < HEAD_SHARE * total:
            classes[item] = "head"
        elif before < MIDDLE_SHARE * total:
            classes[item] = "middle"
        else:
            classes[item] = "tail"
        before += count
    return classes


def target_popularity(target: Sequence[Event], classes: Mapping[bytes, str]) -> str:
    """Returns the one class of all targets, or `mixed`; items without a class are `cold`."""
    kinds = {classes.get(item, "cold") for _, _, item in target}
    popularity = kinds.pop() if len(kinds) == 1 else "mixed"
    assert popularity in features.TARGET_POPULARITIES
    return popularity


def locate_rank(counts: Mapping[int, int], rank: int) -> tuple[int, int]:
    """Returns the key that holds the value of a 0-based rank, and the rank within that key.

    Args:
        counts: key -> number of values, where keys are in the order of the values.
        rank: 0 <= rank < the number of values.
    """
    for key in sorted(counts):
        if rank < counts[key]:
            return key, rank
        rank -= counts[key]
    raise ValueError("the rank is not smaller than the number of values")


def quantile_rank(quantile: float, size: int) -> int:
    """Returns the 0-based rank of a quantile: that share of the values stands before it."""
    return min(size - 1, int(quantile * size))


class FindCuts(beam.PTransform):
    """Timestamps -> one `Cuts`, the exact quantiles (the values of `quantile_rank`).

    No timestamps give no cuts.
    """

    def __init__(self, validation_quantile: float, test_quantile: float):
        super().__init__()
        self._quantiles = (validation_quantile, test_quantile)

    def expand(self, timestamps: beam.PCollection[int]) -> beam.PCollection[Cuts]:
        """Builds the steps; see the class."""
        coarse = (
            timestamps
            | "Bucket" >> beam.Map(lambda timestamp: (timestamp >> _BUCKET_BITS, 1))
            | "CountBuckets" >> beam.CombinePerKey(sum)
            | "Buckets" >> beam.combiners.ToDict()
            | "Locate" >> beam.FlatMap(_locate_all, self._quantiles)
        )
        fine = (
            timestamps
            | "NearCuts" >> beam.FlatMap(_near, beam.pvalue.AsIter(coarse))
            | "CountSeconds" >> beam.CombinePerKey(sum)
            | "Seconds" >> beam.combiners.ToDict()
        )
        return coarse | "Select" >> beam.Map(_select, beam.pvalue.AsSingleton(fine))


def _locate_all(counts: dict[int, int], quantiles: tuple[float, float]) -> Iterable[Any]:
    size = sum(counts.values())
    if size:
        yield tuple(locate_rank(counts, quantile_rank(quantile, size)) for quantile in quantiles)


def _near(timestamp: int, located: Iterable[Any]) -> Iterable[tuple[int, int]]:
    for buckets in located:
        if timestamp >> _BUCKET_BITS in {bucket for bucket, _ in buckets}:
            yield timestamp, 1


def _select(located: tuple[tuple[int, int], tuple[int, int]], seconds: dict[int, int]) -> Cuts:
    def one(bucket: int, rank: int) -> int:
        inside = {
            second: count for second, count in seconds.items() if second >> _BUCKET_BITS == bucket
        }
        return locate_rank(inside, rank)[0]

    return one(*located[0]), one(*located[1])
