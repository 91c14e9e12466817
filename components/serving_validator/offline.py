"""Answers computed without the exported graph, for a server's to be compared with."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import tensorflow as tf

from bivrec_tf.config import ExportConfig
from bivrec_tf.errors import DataError
from bivrec_tf.models import BiVRec

OFFLINE_ANSWERS = "offline_answers.jsonl"
"""File in the training run's folder: one `OfflineAnswer` a line."""


@dataclass(frozen=True)
class OfflineAnswer:
    """What the trained model recommends, computed without the exported graph.

    Attributes:
        history: item ids, oldest first.
        item_ids: recommended ids, best first.
        scores: their scores.
        filter_seen: whether the items of the history were left out.
    """

    history: list[str]
    item_ids: list[str]
    scores: list[float]
    filter_seen: bool = True


def offline_answers(
    model: BiVRec,
    histories: Sequence[Sequence[str]],
    options: ExportConfig | None = None,
    filter_seen: bool = True,
) -> Iterator[OfflineAnswer]:
    """Recommends with the Keras model itself, without the graph that is exported.

    Args:
        model: a trained model.
        histories: item ids, oldest first.
        options: how the model is exported: how many results, in what its tables are kept.
        filter_seen: whether the items of a history are left out.

    Yields:
        The best k items.
    """
    if not histories:
        return
    options = options or ExportConfig()
    index = model.build_index(options.default_k, dtype=options.table_dtype)
    row_of = {item_id: row for row, item_id in enumerate(model.catalogue.item_ids)}
    rows = tf.ragged.constant(
        [[row_of.get(item_id, 0) for item_id in history] for history in histories], dtype=tf.int32
    ).to_tensor()
    views: tuple[str, ...] = model.config.views
    tables = {view: index.table(view) for view in views}
    queries = {view: found.vectors for view, found in model.interests(rows, tables).items()}
    result = index.search(queries, excluded_rows=rows if filter_seen else None)
    for history, best, scores in zip(
        histories, result.rows.numpy(), result.scores.numpy(), strict=True
    ):
        # Where fewer than k items could be recommended the rest is padding, here as in serving.
        ids = [model.catalogue.item_ids[row] for row in best if row]
        values = [float(score) for score in scores[: len(ids)]]
        yield OfflineAnswer(list(history), ids, values, filter_seen)


def write_offline_answers(path: str, answers: Iterable[OfflineAnswer]) -> None:
    """Writes answers, one JSON object a line."""
    with tf.io.gfile.GFile(path, "w") as file:
        for answer in answers:
            file.write(json.dumps(asdict(answer)) + "\n")


def read_offline_answers(path: str) -> list[OfflineAnswer]:
    """Reads answers.

    Raises:
        DataError: the file is missing or empty, so nothing could be compared.
    """
    if not tf.io.gfile.exists(path):
        raise DataError(f"{path}: no offline answers; the training run did not finish")
    with tf.io.gfile.GFile(path) as file:
        answers = [OfflineAnswer(**json.loads(line)) for line in file if line.strip()]
    if not answers:
        raise DataError(f"{path}: no offline answers, so nothing can be compared")
    return answers
