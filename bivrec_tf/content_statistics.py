"""What a catalogue's content looks like as a whole, and how far another one's is from it."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from bivrec_tf.catalogue import ItemFeatures

PRESENCE_TOLERANCE = 0.1
"""Change of the share of items that have a modality that is worth a word."""
SHIFT_TOLERANCE = 0.25
"""Shift of the mean vector, in standard deviations of a value, that is worth a word."""
SPREAD_TOLERANCE = 1.5
"""Factor between the spreads of two sets of vectors that is worth a word."""
_NOISE_FACTOR = 4.0


@dataclass(frozen=True)
class ModalityStatistics:
    """One modality over a catalogue.

    Attributes:
      items: Items of the table.
      present: Items that have the modality.
      mean: `[dimension]`, of the vectors present.
      deviation: `[dimension]`, their standard deviations.
    """

    items: int
    present: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @property
    def share(self) -> float:
        """Share of items that have the modality."""
        return self.present / max(self.items, 1)


def content_statistics(
    items: Iterable[ItemFeatures], modalities: Iterable[str] = ()
) -> dict[str, ModalityStatistics]:
    """Computes the statistics of every modality in one pass.

    Args:
      items: Content of all items.
      modalities: Names to report on even where no item has them.
    """
    count = 0
    sums: dict[str, list] = {name: [0, 0.0, 0.0] for name in modalities}
    for item in items:
        count += 1
        for name, vector in item.features.items():
            part = sums.setdefault(name, [0, 0.0, 0.0])
            values = np.asarray(vector, np.float64)
            part[0] += 1
            part[1] = part[1] + values
            part[2] = part[2] + values * values
    found = {}
    for name, (present, total, squares) in sorted(sums.items()):
        mean = np.atleast_1d(total / max(present, 1))
        variance = np.maximum(np.atleast_1d(squares / max(present, 1)) - mean * mean, 0.0)
        is_known = present > 0
        found[name] = ModalityStatistics(
            count,
            present,
            tuple(mean.tolist()) if is_known else (),
            tuple(np.sqrt(variance).tolist()) if is_known else (),
        )
    return found


def describe_drift(
    before: Mapping[str, ModalityStatistics], now: Mapping[str, ModalityStatistics]
) -> list[str]:
    """Says in words what changed more than chance or an ordinary update would.

    Args:
      before: Statistics that a model was trained with.
      now: Statistics of the catalogue at hand.

    Returns:
      One sentence for each finding; none when the content is what it was.
    """
    found = []
    for name in sorted({*before, *now}):
        if name not in now or (now[name].present == 0 and before.get(name, now[name]).present):
            found.append(
                f"{name}: no item has it any more; the model was trained with it for "
                f"{before[name].share:.0%} of {before[name].items:,} items. Was a column renamed?"
            )
            continue
        if name not in before:
            found.append(f"{name}: new, the model was trained without it.")
            continue
        found += _differences(name, before[name], now[name])
    items = [part.items for part in before.values()], [part.items for part in now.values()]
    if all(items) and max(items[1]) < 0.5 * max(items[0]):
        found.append(
            f"the item table has {max(items[1]):,} items, it had {max(items[0]):,}. Is it complete?"
        )
    return found


def _differences(name: str, before: ModalityStatistics, now: ModalityStatistics) -> list[str]:
    found = []
    if abs(now.share - before.share) > PRESENCE_TOLERANCE:
        found.append(
            f"{name}: {now.share:.0%} of the items have it, {before.share:.0%} had it when the "
            "model was trained."
        )
    if not (before.present and now.present):
        return found
    if len(before.mean) != len(now.mean):
        return [
            *found,
            f"{name}: vectors of {len(now.mean)} values, {len(before.mean)} when the model was "
            "trained. Train a new model with them.",
        ]
    deviation = np.asarray(before.deviation)
    varies = deviation > 1e-9
    if not varies.any():
        return found
    shift = (np.asarray(now.mean) - np.asarray(before.mean))[varies] / deviation[varies]
    size = math.sqrt(float(np.mean(shift**2)))
    noise = math.sqrt(1 / before.present + 1 / now.present)
    if size > max(SHIFT_TOLERANCE, _NOISE_FACTOR * noise):
        found.append(
            f"{name}: the mean vector moved by {size:.2f} standard deviations since the model was "
            "trained. Another encoder, another language, another source of pictures?"
        )
    spread = float(np.mean(np.asarray(now.deviation)[varies] / deviation[varies]))
    # The deviation of a handful of vectors says little.
    if min(before.present, now.present) >= 30 and not (
        1 / SPREAD_TOLERANCE < spread < SPREAD_TOLERANCE
    ):
        found.append(
            f"{name}: the vectors spread {spread:.2f} times as wide as when the model was trained."
        )
    return found


def to_json(statistics: Mapping[str, ModalityStatistics]) -> str:
    """Returns the statistics as a JSON object."""
    return json.dumps({name: dataclasses.asdict(part) for name, part in statistics.items()})


def from_json(text: str) -> dict[str, ModalityStatistics]:
    """Reads what `to_json` wrote."""
    return {
        name: ModalityStatistics(
            part["items"], part["present"], tuple(part["mean"]), tuple(part["deviation"])
        )
        for name, part in json.loads(text).items()
    }
