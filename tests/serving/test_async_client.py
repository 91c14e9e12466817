import asyncio
import inspect

import grpc
import numpy as np
import pytest

from serving.client import (
    AsyncRecommenderClient,
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    RecommenderClient,
    RetryPolicy,
    ServerUnavailable,
)

HISTORY = ["item-1", "unknown", "item-2"]


def call(target, ask, **arguments):
    """Runs `ask(client)` in an event loop of its own, and closes the client."""

    async def run():
        async with AsyncRecommenderClient(target, **{"timeout": 60.0, **arguments}) as client:
            return await ask(client)

    return asyncio.run(run())


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.recommend(HISTORY, 3, ["item-11"], 0.5, False, 0.25, ["item-10"]),
        lambda client: client.recommend_many([HISTORY, []], k=2),
        lambda client: client.recommend_many([]),
        lambda client: client.because(HISTORY, ["item-5"]),
        lambda client: client.similar_items("item-3", k=2),
        lambda client: client.interests(HISTORY),
        lambda client: client.status(),
        lambda client: client.metadata(),
        lambda client: client.wait_until_ready(60.0),
    ],
)
def test_the_same_answers_as_the_other_client(server, client, ask):
    assert call(server.target, ask) == ask(client)


def test_predict(server):
    outputs = call(server.target, lambda client: client.predict("double", {"x": [1.5]}))
    np.testing.assert_array_equal(outputs["y"], [3.0])


def test_the_same_methods_and_arguments():
    def public(kind) -> dict:
        methods = inspect.getmembers(kind, inspect.isfunction)
        return {
            name: list(inspect.signature(method).parameters.values())
            for name, method in methods
            if name == "__init__" or not name.startswith("_")
        }

    assert public(AsyncRecommenderClient) == public(RecommenderClient)


def test_many_calls_at_once_on_one_connection(start_proxy):
    proxy, target = start_proxy()

    async def ask(client):
        calls = [client.predict("double", {"x": [float(n)]}) for n in range(64)]
        return [answer["y"].item() for answer in await asyncio.gather(*calls)]

    assert call(target, ask) == [2.0 * number for number in range(64)]
    assert len(proxy.peers) == 1


def test_retries(start_proxy):
    proxy, target = start_proxy()
    proxy.codes = [grpc.StatusCode.UNAVAILABLE] * 2
    assert call(target, lambda client: client.recommend(HISTORY)).model_version == 7
    assert proxy.calls == 3
    proxy.codes = [grpc.StatusCode.UNAVAILABLE] * 9
    with pytest.raises(ServerUnavailable, match="by the proxy"):
        call(target, lambda client: client.recommend(HISTORY), retries=RetryPolicy(attempts=2))
    assert proxy.calls == 5
    proxy.codes = [grpc.StatusCode.RESOURCE_EXHAUSTED]
    with pytest.raises(Exception, match="RESOURCE_EXHAUSTED"):
        call(target, lambda client: client.recommend(HISTORY))
    assert proxy.calls == 6


def test_errors(server):
    for ask, arguments, kind in [
        (lambda client: client.recommend(["a"]), {"model_name": "other"}, ModelNotFound),
        (lambda client: client.recommend([7]), {}, InvalidRequest),
        (lambda client: client.predict("other", {}), {}, InvalidRequest),
        (lambda client: client.wait_until_ready(0.3), {"model_name": "other"}, ModelNotFound),
    ]:
        with pytest.raises(kind):
            call(server.target, ask, **arguments)
    with pytest.raises(ServerUnavailable, match="not ready after 0.3 seconds"):
        call("127.0.0.1:1", lambda client: client.wait_until_ready(0.3))


def test_deadline_and_cancelling(server, tmp_path, wait_for):
    """A call that is cancelled ends at once, and leaves the client in order."""
    release, started = tmp_path / "release", tmp_path / "started"
    inputs = {"started": str(started), "release": str(release)}

    async def ask(client):
        task = asyncio.create_task(client.predict("hold", inputs))
        await asyncio.to_thread(wait_for, started.exists)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await client.recommend(HISTORY)

    try:
        assert call(server.target, ask).model_version == 7
        with pytest.raises(DeadlineExceeded):
            call(server.target, lambda client: client.predict("hold", inputs), timeout=0.2)
    finally:
        release.touch()
