"""Core of the refresh: a served model over an updated item table, and what it must keep."""

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from bivrec_tf import features
from bivrec_tf.catalogue import ItemFeatures
from bivrec_tf.errors import DataError
from bivrec_tf.export import export
from bivrec_tf.features import VIEWS
from bivrec_tf.models import BiVRec
from bivrec_tf.saved_model import SavedRecommender, read_saved_model, restore
from components.folders import copy_folder
from components.model_refresher import MAX_RETIRED
from components.serving_validator.offline import OfflineAnswer, offline_answers
from serving.warm_up import WARM_UP_FILE

_MM = VIEWS[1]
_HISTORIES = 64
_MOST_COMPARED = 1000
_NEW_ITEMS_RANKED = 200
_NEW_ITEMS_SERVED = 20
_MOST_PROBLEMS = 5
# Vectors of length about 1 that differ by less were made from the same content.
_SAME_VECTOR = 1e-4


class Tolerance(NamedTuple):
    """How far an item whose content did not change may move.

    Attributes:
        vector: of its index vectors, every component.
        score: of its score, relative to max(1, score). A score sums products of some hundred
            components, which may cancel out, and a product of another shape (a row more or less)
            is rounded otherwise.
    """

    vector: float
    score: float


SAME_CONTENT = Tolerance(vector=1e-6, score=1e-5)
REENCODED = Tolerance(vector=1e-3, score=1e-3)
"""Where content was encoded again: rounding differs with what shares a batch."""


@dataclass
class RefreshReport:
    """What a refresh did and found.

    Attributes:
        items: items that the refreshed model can recommend.
        new: items that the served model did not know.
        new_without_content: those of them that nothing but their id is known of.
        changed: items whose content changed.
        reencoded: items of the same content, encoded again with other rounding.
        returned: items that had been retired and are listed again.
        retired: items that the table lists no more.
        scores_compared: scores of unchanged items compared between the two models.
        largest_difference: the largest difference among them, relative to max(1, score).
        vectors_compared: index vectors of unchanged items, all of them, compared likewise.
        median_rank_of_new: median rank of a new item when it is the whole history; none without
            new items.
        problems: why the refreshed model must not be served, in words; empty when it may.
    """

    items: int = 0
    new: int = 0
    new_without_content: int = 0
    changed: int = 0
    reencoded: int = 0
    returned: int = 0
    retired: int = 0
    scores_compared: int = 0
    largest_difference: float = 0.0
    vectors_compared: int = 0
    median_rank_of_new: float | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def is_new(self) -> bool:
        """Whether the refreshed model differs from the served one at all."""
        return any((self.new, self.changed, self.reencoded, self.returned, self.retired))

    def to_json(self) -> str:
        """Returns the report as a JSON object."""
        return json.dumps(dataclasses.asdict(self), indent=2)


def refresh_model(
    served: str,
    items: Iterable[ItemFeatures],
    modalities: Mapping[str, Mapping[str, Any]],
    output_directory: str,
    max_retired: float = MAX_RETIRED,
) -> tuple[RefreshReport, list[OfflineAnswer]]:
    """Exports the served model over an updated item table, and compares the two.

    Args:
        served: version folder of the model that is served now.
        items: content of every item of the updated table.
        modalities: what the content was encoded with, see `read_modalities`.
        output_directory: where the refreshed SavedModel goes.
        max_retired: share of the listed items that may be retired at once.

    Returns:
        The report, and answers that a server of the refreshed model must give.

    Raises:
        ConfigError: the served model cannot be refreshed.
        DataError: the content was not encoded as the model's was.
    """
    saved = read_saved_model(served)
    _check_encoders(saved, modalities)
    model = restore(saved, items)
    tables = model.item_tables()
    report = RefreshReport(items=int(model.catalogue.num_items - model.catalogue.retired.sum()))
    unchanged = _count_changes(saved, model, tables[_MM].numpy(), report)
    _check_retired(saved, report, max_retired)
    if report.is_new:
        export(
            model,
            output_directory,
            metrics=saved.description["validation"],
            options=saved.export,
            encoders=saved.modalities,
            # What the model was trained with, not what it is refreshed with: slow drift adds up.
            statistics=saved.content_statistics,
        )
        _keep_warm_up_requests(served, output_directory)
    else:
        # The very same files: whoever pushes sees that this model is served already.
        copy_folder(served, output_directory)
    histories = _histories(saved, model, unchanged)
    _compare_vectors(saved, read_saved_model(output_directory), unchanged, report)
    most = min(_MOST_COMPARED, saved.export.max_k)
    compare_scores(served, output_directory, histories, unchanged, report, most)
    new = _rank_new_items(saved, model, tables, report)
    answers = list(offline_answers(model, histories, saved.export))
    # From the best ranked to the worst: the server must find each at its place.
    asked = [(item_id, rank) for item_id, rank in new if rank <= most]
    asked = asked[:: max(1, len(asked) // _NEW_ITEMS_SERVED)]
    k = max([saved.export.default_k, *(rank for _, rank in asked)])
    options = saved.export.model_copy(update={"default_k": k})
    histories = [[item_id] for item_id, _ in asked]
    answers += offline_answers(model, histories, options, filter_seen=False)
    return report, answers


def _keep_warm_up_requests(served: str, output_directory: str) -> None:
    """Their items are known to the refreshed model, too."""
    path = os.path.join(served, WARM_UP_FILE)
    if tf.io.gfile.exists(path):
        tf.io.gfile.copy(path, os.path.join(output_directory, WARM_UP_FILE), overwrite=True)


def _check_encoders(saved: SavedRecommender, modalities: Mapping[str, Mapping[str, Any]]) -> None:
    """Vectors of another encoder have the right length and mean nothing."""
    for name, part in saved.modalities.items():
        now = modalities.get(name, {})
        if "fingerprint" in part and part["fingerprint"] != now.get("fingerprint"):
            raise DataError(
                f"modality '{name}': the model was trained with vectors of encoder "
                f"{_named(part)}, these are of {_named(now)}. Refresh with the encoder that "
                "the model was trained with, or train a new model."
            )


def _named(part: Mapping[str, Any]) -> str:
    fingerprint = part.get("fingerprint")
    return f"{part.get('encoder')!r} ({fingerprint[:12]})" if fingerprint else "none"


def _check_retired(saved: SavedRecommender, report: RefreshReport, max_retired: float) -> None:
    """Half an export must not empty a shop."""
    listed = int((saved.listed & ~saved.retired).sum())
    if report.retired > max_retired * listed:
        report.problems.append(
            f"the table retires {report.retired:,} of {listed:,} listed items, more than "
            f"{max_retired:.0%}. Is it complete? If so, allow it: --max-retired 1"
        )


def _count_changes(
    saved: SavedRecommender, model: BiVRec, vectors: np.ndarray, report: RefreshReport
) -> dict[str, Tolerance]:
    """Fills in the report's counts; returns the items that must score as before.

    Returns:
        Ids of the items whose content did not change -> how far they may move.
    """
    catalogue = model.catalogue
    old_row = {item_id: row for row, item_id in enumerate(saved.item_ids) if row}
    hashes, has_content = catalogue.content_hashes, catalogue.has_content
    unchanged = {}
    for row, item_id in enumerate(catalogue.item_ids):
        if not row:
            continue
        was = old_row.get(item_id)
        if was is None:
            report.new += 1
            report.new_without_content += not has_content[row]
        elif catalogue.retired[row]:
            report.retired += not saved.retired[was]
        elif saved.retired[was]:
            report.returned += 1
        elif hashes[row] == saved.content_hashes[was]:
            unchanged[item_id] = SAME_CONTENT
        elif np.abs(vectors[row] - saved.tables[_MM][was]).max() < _SAME_VECTOR:
            report.reencoded += 1
            unchanged[item_id] = REENCODED
        else:
            report.changed += 1
    return unchanged


def _histories(
    saved: SavedRecommender, model: BiVRec, unchanged: Mapping[str, Tolerance]
) -> list[list[str]]:
    """Histories of items that mean what they meant, drawn by popularity; always the same ones."""
    retired = {model.catalogue.item_ids[row] for row in np.flatnonzero(model.catalogue.retired)}
    exact = {name for name, tolerance in unchanged.items() if tolerance == SAME_CONTENT}
    usable = retired | (exact or unchanged.keys())
    rows = [row for row, item_id in enumerate(saved.item_ids) if row and item_id in usable]
    if not rows:
        # Nothing stayed: the server is still asked for what it makes of the new items.
        return [[item_id] for item_id in model.catalogue.item_ids[1 : _HISTORIES + 1]]
    generator = np.random.default_rng(0)
    weights = saved.counts[rows] + 1.0
    weights /= weights.sum()
    longest = saved.config.max_history
    histories = []
    for _ in range(_HISTORIES):
        length = min(int(generator.integers(1, longest + 1)), len(rows))
        drawn = generator.choice(len(rows), size=length, replace=False, p=weights)
        histories.append([saved.item_ids[rows[place]] for place in drawn])
    return histories


def _compare_vectors(
    before: SavedRecommender,
    after: SavedRecommender,
    unchanged: Mapping[str, Tolerance],
    report: RefreshReport,
) -> None:
    """Compares the index vectors of all unchanged items, which the histories cannot all reach."""
    new_row = {item_id: row for row, item_id in enumerate(after.item_ids)}
    pairs = [(row, new_row[i]) for row, i in enumerate(before.item_ids) if i in unchanged]
    report.vectors_compared = len(pairs)
    if not pairs:
        report.problems.append(
            "no item kept its content, so nothing tells that the refreshed model is the served "
            "one. Is it the right table? If so, train a new model."
        )
        return
    rows = np.array(pairs)
    tolerance = np.array([unchanged[before.item_ids[row]].vector for row in rows[:, 0]])
    for view, table in before.tables.items():
        difference = np.abs(table[rows[:, 0]] - after.tables[view][rows[:, 1]]).max(axis=1)
        # Written so that a NaN counts as a difference.
        wrong = np.flatnonzero(~(difference <= tolerance))
        if len(wrong):
            names = [before.item_ids[rows[place, 0]] for place in wrong[:_MOST_PROBLEMS]]
            report.problems.append(
                f"{view} view: the vectors of {len(wrong):,} items, whose content did not "
                f"change, are others now, such as {names}"
            )


def compare_scores(
    served: str,
    refreshed: str,
    histories: Sequence[Sequence[str]],
    unchanged: Mapping[str, Tolerance],
    report: RefreshReport,
    most: int = _MOST_COMPARED,
) -> None:
    """Compares the scores that two exported models give unchanged items.

    Args:
        served: SavedModel that is served now.
        refreshed: SavedModel that shall take its place.
        histories: item ids, of items that mean the same to both.
        unchanged: ids of items whose content did not change, and how far they may move.
        report: where the comparison and the problems go.
        most: scores compared for a history; both models must allow so many.
    """
    before, after = (tf.saved_model.load(place).signatures for place in (served, refreshed))
    for number, history in enumerate(histories):
        old, new = (_scores(signatures, history, most) for signatures in (before, after))
        lowest = min(new.values(), default=0.0)
        for item_id, score in old.items():
            if item_id not in unchanged:
                continue
            tolerance = max(unchanged[i].score for i in [item_id, *history] if i in unchanged)
            allowed = tolerance * max(1.0, abs(score))
            is_cut = len(new) == most and score <= lowest + allowed
            if item_id not in new and is_cut:
                continue  # New items took its place among those that were asked for.
            found = new.get(item_id, float("nan"))
            difference = abs(found - score) / max(1.0, abs(score))
            report.scores_compared += 1
            report.largest_difference = max(report.largest_difference, difference)
            # Written so that a NaN counts as a difference.
            if not difference <= tolerance and len(report.problems) < _MOST_PROBLEMS:
                report.problems.append(
                    f"item {item_id!r}, whose content did not change, scored {score!r} for "
                    f"history {number} and scores {found!r} now"
                )


def _scores(signatures: Mapping[str, Any], history: Sequence[str], most: int) -> dict[str, float]:
    recommend = signatures[features.RECOMMEND]
    inputs = {
        features.HISTORY: tf.constant([list(history)]),
        features.EXCLUDE: tf.constant([[""]]),
        features.UNAVAILABLE: tf.constant([""]),
        features.K: tf.constant(most),
        features.ID_WEIGHT: tf.constant(-1.0),
        features.DIVERSITY: tf.constant(0.0),
        features.FILTER_SEEN: tf.constant(True),
    }
    # The served model may be of a version that did not take all of them.
    taken = recommend.structured_input_signature[1]
    answer = recommend(**{name: value for name, value in inputs.items() if name in taken})
    ids, scores = answer[features.ITEM_IDS][0].numpy(), answer[features.SCORES][0].numpy()
    pairs = zip(ids, scores, strict=True)
    return {item_id.decode(): float(score) for item_id, score in pairs if item_id}


def _rank_new_items(
    saved: SavedRecommender,
    model: BiVRec,
    tables: Mapping[str, tf.Tensor],
    report: RefreshReport,
) -> list[tuple[str, int]]:
    """Ranks new items, each for a history of itself: (item id, rank), best first."""
    catalogue = model.catalogue
    known, has_content = set(saved.item_ids), catalogue.has_content
    rows = [
        row
        for row, item_id in enumerate(catalogue.item_ids)
        if item_id not in known and has_content[row]
    ]
    if not rows:
        return []
    vectors = tables[_MM].numpy()
    broken = [catalogue.item_ids[row] for row in rows if not np.isfinite(vectors[row]).all()]
    if broken:
        report.problems.append(f"new items without a usable vector: {broken[:_MOST_PROBLEMS]}")
    rows = rows[:: max(1, len(rows) // _NEW_ITEMS_RANKED)]
    column = tf.constant(rows, tf.int32)[:, tf.newaxis]
    queries = {view: found.vectors for view, found in model.interests(column, tables).items()}
    ranks = model.build_index(tables=tables).ranks(queries, column)[:, 0].numpy()
    report.median_rank_of_new = float(np.median(ranks))
    return sorted(
        ((catalogue.item_ids[row], int(rank)) for row, rank in zip(rows, ranks, strict=True)),
        key=lambda pair: pair[1],
    )
