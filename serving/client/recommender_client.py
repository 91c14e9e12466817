"""A typed client for the exported model, behind TensorFlow Serving or the development server."""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

import grpc

from serving.answers import (
    Explanation,
    Interests,
    Recommendations,
    Signature,
    SimilarItems,
    VersionStatus,
)
from serving.client.calls import Answer, Call
from serving.client.client_base import ClientBase
from serving.client.readiness import Readiness
from serving.errors import from_rpc_error

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class RecommenderClient(ClientBase):
    """Calls one model on one server. A context manager; safe to share between threads.

    One connection is kept and used by all calls. Every method raises a
    `serving.errors.ServingError` when a call fails: `ModelNotFound`, `InvalidRequest`,
    `DeadlineExceeded`, `ServerUnavailable`, `UnexpectedAnswer`, or the base class for the rest.

    Arguments and errors are those of `ClientBase`.
    """

    _transport = grpc

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def recommend(
        self,
        history: Sequence[str],
        k: int = 10,
        exclude: Sequence[str] = (),
        id_weight: float | None = None,
        filter_seen: bool | None = None,
        diversity: float | None = None,
        unavailable: Sequence[str] = (),
    ) -> Recommendations:
        """Recommends items to one user. What is None is left to the model.

        Args:
            history: Item ids, oldest first. Unknown ids are ignored and counted; an empty
                history gets the popularity list.
            k: How many items, at least 1.
            exclude: Item ids never to recommend to this user.
            id_weight: The weight of the id view in [0, 1].
            filter_seen: Whether the items of the history are never recommended.
            diversity: How much a result that is unlike those before it counts, in [0, 1].
            unavailable: Item ids that nobody can have at the moment.
        """
        # An empty list need not be sent, and a str must be found to be no list.
        excluded = [exclude] if len(exclude) else None
        answers = self.recommend_many(
            [history], k, excluded, id_weight, filter_seen, diversity, unavailable
        )
        return answers[0]

    def recommend_many(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        exclude: Sequence[Sequence[str]] | None = None,
        id_weight: float | None = None,
        filter_seen: bool | None = None,
        diversity: float | None = None,
        unavailable: Sequence[str] = (),
    ) -> list[Recommendations]:
        """Recommends items to many users in one request. What is None is left to the model.

        Args:
            histories: One history for each user, as for `recommend`; of any lengths.
            k: How many items for each user, at least 1.
            exclude: Item ids never to recommend, one sequence for each user; None for nothing.
            id_weight: The weight of the id view in [0, 1].
            filter_seen: Whether the items of a history are never recommended to its user.
            diversity: How much a result that is unlike those before it counts, in [0, 1].
            unavailable: Item ids that nobody can have at the moment.

        Returns:
            One answer for each history, in their order.
        """
        call = self._calls.recommend(
            histories, k, exclude, id_weight, filter_seen, diversity, unavailable
        )
        return self._answer(call) if len(histories) else []

    def because(self, history: Sequence[str], item_ids: Sequence[str]) -> tuple[Explanation, ...]:
        """Tells which items of a history speak for items of the caller's choice.

        Args:
            history: Item ids, oldest first.
            item_ids: The items to explain.

        Returns:
            One explanation for each of `item_ids`, in their order.
        """
        return self._answer(self._calls.because(history, item_ids))

    def similar_items(self, item_id: str, k: int = 10) -> SimilarItems:
        """Finds the items nearest to one, in each view of the model.

        Args:
            item_id: The item. One that the model does not know gets empty lists.
            k: How many items for each view, at least 1.
        """
        return self._answer(self._calls.similar_items(item_id, k))

    def interests(self, history: Sequence[str]) -> Interests:
        """Returns the interests that the model finds in a history.

        Args:
            history: Item ids, oldest first.
        """
        return self._answer(self._calls.interests(history))

    def predict(
        self, signature: str, inputs: "Mapping[str, npt.ArrayLike]"
    ) -> "dict[str, np.ndarray]":
        """Calls any signature of the model. The only method that needs numpy.

        Args:
            signature: Its name, such as `serving_default`.
            inputs: Arrays or nested lists by input name. Python floats are sent as float32, ints
                as int32; arrays keep their dtype, and the server does not convert it.

        Returns:
            The outputs by name; strings as object arrays of bytes.
        """
        return self._answer(self._calls.predict(signature, inputs))

    def status(self) -> tuple[VersionStatus, ...]:
        """Returns the state of every version that the server knows, by ascending version."""
        return self._answer(self._calls.status())

    def metadata(self) -> dict[str, Signature]:
        """Returns what the signatures of the model take and give, by name."""
        return self._answer(self._calls.metadata())

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Waits until the server answers and has the model loaded.

        Args:
            timeout: How many seconds to wait at most.

        Raises:
            ModelNotFound: If the server answers, but does not have the model in time.
            ServerUnavailable: If no server answers in time.
        """
        readiness = Readiness(self.target, timeout)
        while True:
            with readiness.look() as seconds:
                readiness.report(self._answer(self._calls.status(), seconds, wait_for_ready=True))
            if readiness.reached:
                return
            time.sleep(readiness.pause())

    def _answer(
        self, call: Call[Answer], timeout: float | None = None, wait_for_ready: bool = False
    ) -> Answer:
        try:
            response = self._methods[call.method](
                call.request,
                timeout=self.timeout if timeout is None else timeout,
                wait_for_ready=wait_for_ready,
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.target) from error
        return call.read(response)
