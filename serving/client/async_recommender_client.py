"""The client for programs that use asyncio."""

import asyncio
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


class AsyncRecommenderClient(ClientBase):
    """`RecommenderClient` for asyncio: the same arguments, methods, answers and errors.

    Make it, use it and close it in one event loop. A task that is cancelled cancels its call.

    Example:
        >>> async with AsyncRecommenderClient("localhost:8500") as client:  # doctest: +SKIP
        ...     answer = await client.recommend(["1193", "661"], k=5)

    Arguments and errors are those of `ClientBase`.
    """

    _transport = grpc.aio

    async def close(self) -> None:
        """Closes the connection; calls under way are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def recommend(
        self,
        history: Sequence[str],
        k: int = 10,
        exclude: Sequence[str] = (),
        id_weight: float | None = None,
        filter_seen: bool | None = None,
        diversity: float | None = None,
        unavailable: Sequence[str] = (),
    ) -> Recommendations:
        """Recommends items to one user; see `RecommenderClient.recommend`."""
        excluded = [exclude] if len(exclude) else None
        answers = await self.recommend_many(
            [history], k, excluded, id_weight, filter_seen, diversity, unavailable
        )
        return answers[0]

    async def recommend_many(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        exclude: Sequence[Sequence[str]] | None = None,
        id_weight: float | None = None,
        filter_seen: bool | None = None,
        diversity: float | None = None,
        unavailable: Sequence[str] = (),
    ) -> list[Recommendations]:
        """Recommends items to many users in one request; see `RecommenderClient.recommend_many`."""
        call = self._calls.recommend(
            histories, k, exclude, id_weight, filter_seen, diversity, unavailable
        )
        return await self._answer(call) if len(histories) else []

    async def because(
        self, history: Sequence[str], item_ids: Sequence[str]
    ) -> tuple[Explanation, ...]:
        """Tells what in a history speaks for given items; see `RecommenderClient.because`."""
        return await self._answer(self._calls.because(history, item_ids))

    async def similar_items(self, item_id: str, k: int = 10) -> SimilarItems:
        """Finds the items nearest to one; see `RecommenderClient.similar_items`."""
        return await self._answer(self._calls.similar_items(item_id, k))

    async def interests(self, history: Sequence[str]) -> Interests:
        """Returns the interests found in a history; see `RecommenderClient.interests`."""
        return await self._answer(self._calls.interests(history))

    async def predict(
        self, signature: str, inputs: "Mapping[str, npt.ArrayLike]"
    ) -> "dict[str, np.ndarray]":
        """Calls any signature with arrays; see `RecommenderClient.predict`."""
        return await self._answer(self._calls.predict(signature, inputs))

    async def status(self) -> tuple[VersionStatus, ...]:
        """Returns the state of every version that the server knows, by ascending version."""
        return await self._answer(self._calls.status())

    async def metadata(self) -> dict[str, Signature]:
        """Returns what the signatures of the model take and give, by name."""
        return await self._answer(self._calls.metadata())

    async def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Waits until the server has the model; see `RecommenderClient.wait_until_ready`."""
        readiness = Readiness(self.target, timeout)
        while True:
            with readiness.look() as seconds:
                readiness.report(
                    await self._answer(self._calls.status(), seconds, wait_for_ready=True)
                )
            if readiness.reached:
                return
            await asyncio.sleep(readiness.pause())

    async def _answer(
        self, call: Call[Answer], timeout: float | None = None, wait_for_ready: bool = False
    ) -> Answer:
        try:
            response = await self._methods[call.method](
                call.request,
                timeout=self.timeout if timeout is None else timeout,
                wait_for_ready=wait_for_ready,
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.target) from error
        return call.read(response)
