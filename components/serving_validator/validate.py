"""Replays requests through a real server process and compares with answers computed offline."""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from components.folders import copy_folder
from components.serving_validator.offline import OfflineAnswer
from serving.client import RecommenderClient
from serving.errors import ServingError
from serving.process import ServerProcess, ServerProcessError

_MOST_DIFFERENCES = 5
_VERSION = "1"


@dataclass
class Verdict:
    """The outcome of a validation.

    Attributes:
        requests: requests replayed.
        differences: what differed, in words; empty when the model may be served.
        median_milliseconds: median time of a request over gRPC.
        slow_milliseconds: 95th percentile of that.
    """

    requests: int = 0
    differences: list[str] = field(default_factory=list)
    median_milliseconds: float = 0.0
    slow_milliseconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether served and offline answers agree."""
        return not self.differences

    def to_json(self) -> str:
        """Returns the verdict as a JSON object."""
        return json.dumps(asdict(self), indent=2)


def compare(
    served_ids: Sequence[str],
    served_scores: Sequence[float],
    answer: OfflineAnswer,
    tolerance: float,
) -> str | None:
    """Compares two answers to one request.

    Items whose scores are equal within the tolerance may stand in either order.

    Returns:
        What differs, or None.
    """
    if len(served_ids) != len(answer.item_ids):
        return f"{len(served_ids)} items served, {len(answer.item_ids)} offline"
    for place, (served, offline) in enumerate(zip(served_scores, answer.scores, strict=True)):
        allowed = tolerance * max(1.0, abs(offline))
        # Written so that a NaN counts as a difference.
        if not abs(served - offline) <= allowed:
            return f"place {place + 1}: score {served!r} served, {offline!r} offline"
        if served_ids[place] != answer.item_ids[place]:
            twins = [
                other
                for other, score in zip(answer.item_ids, answer.scores, strict=True)
                if abs(score - served) <= allowed
            ]
            is_last_tie = abs(answer.scores[-1] - served) <= allowed
            if served_ids[place] not in twins and not is_last_tie:
                return (
                    f"place {place + 1}: item {served_ids[place]!r} served, "
                    f"{answer.item_ids[place]!r} offline"
                )
    return None


def validate_serving(
    model_directory: str, answers: Sequence[OfflineAnswer], tolerance: float = 1e-4
) -> Verdict:
    """Serves a SavedModel in a process of its own and replays the histories of `answers`.

    Args:
        model_directory: the SavedModel.
        answers: what each history's recommendations should be.
        tolerance: relative difference of scores that still counts as equal.

    Returns:
        The verdict. A model that no server loads is a difference, not an error.
    """
    verdict = Verdict()
    with tempfile.TemporaryDirectory() as base:
        copy_folder(model_directory, os.path.join(base, _VERSION))
        try:
            with (
                ServerProcess(base, poll_seconds=0) as server,
                RecommenderClient(server.target, timeout=30.0) as client,
            ):
                _replay(client, answers, tolerance, verdict)
        except (ServerProcessError, ServingError) as error:
            verdict.differences.append(str(error))
    return verdict


def _replay(
    client: RecommenderClient,
    answers: Sequence[OfflineAnswer],
    tolerance: float,
    verdict: Verdict,
) -> None:
    # The first request also pays for what TensorFlow prepares lazily; it is not measured.
    client.recommend(answers[0].history, k=len(answers[0].item_ids))
    milliseconds = []
    for number, answer in enumerate(answers):
        start = time.perf_counter()
        served = client.recommend(
            answer.history, k=len(answer.item_ids), filter_seen=answer.filter_seen
        )
        milliseconds.append(1000 * (time.perf_counter() - start))
        difference = compare(
            [item.item_id for item in served.items],
            [item.score for item in served.items],
            answer,
            tolerance,
        )
        verdict.requests += 1
        if difference and len(verdict.differences) < _MOST_DIFFERENCES:
            verdict.differences.append(
                f"request {number} ({len(answer.history)} items of history): {difference}"
            )
    verdict.median_milliseconds = round(statistics.median(milliseconds), 2)
    milliseconds.sort()
    verdict.slow_milliseconds = round(milliseconds[int(0.95 * (len(milliseconds) - 1))], 2)
