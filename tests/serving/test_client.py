import socket
import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bivrec_contract.errors import ConfigError
from serving.client import (
    DeadlineExceeded,
    Explanation,
    InvalidRequest,
    ModelNotFound,
    Recommendation,
    RecommenderClient,
    RetryPolicy,
    ServerUnavailable,
    ServingError,
    SimilarItem,
    UnexpectedAnswer,
)

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE

ITEM_IDS = st.sampled_from([f"item-{number}" for number in range(12)] + ["unknown", "ünknown"])


def test_recommend(client):
    answer = client.recommend(["item-11", "unknown"], k=2, exclude=["item-10"], id_weight=1.0)
    assert answer.model_version == 7
    assert answer.unknown_items == 1
    assert answer.items == (
        Recommendation("item-9", 9.0, 1, 9.0, 6.0, ("item-11", "unknown")),
        Recommendation("item-8", 8.0, 0, 8.0, 9.0, ("item-11", "unknown")),
    )


def test_fewer_items_than_asked_for(client):
    answer = client.recommend(["item-0"], k=12, exclude=[f"item-{i}" for i in range(2, 12)])
    assert [item.item_id for item in answer.items] == ["item-1"]


def test_items_that_nobody_can_have(client):
    answer = client.recommend(["item-0"], k=1, id_weight=1.0, unavailable=["item-11", "item-10"])
    assert [item.item_id for item in answer.items] == ["item-9"]


def test_diversity_arrives(client):
    plain, varied = (client.recommend(["item-0"], k=1, diversity=d) for d in (None, 0.5))
    assert varied.items[0].score == plain.items[0].score + 0.5


def test_because(client):
    assert client.because(["item-1", "item-2"], ["item-5", "item-6"]) == (
        Explanation("item-5", ("item-1", "item-2"), (0.5, 0.25)),
        Explanation("item-6", ("item-1", "item-2"), (0.5, 0.25)),
    )


def test_similar_items(client):
    answer = client.similar_items("item-3", k=2)
    assert answer.known and answer.model_version == 7
    assert answer.views == {
        "id": (SimilarItem("item-0", 0.5), SimilarItem("item-1", pytest.approx(1 / 3))),
        "mm": (SimilarItem("item-11", -0.5), SimilarItem("item-10", pytest.approx(-1 / 3))),
    }
    answer = client.similar_items("nothing")
    assert not answer.known
    assert answer.views == {"id": (), "mm": ()}


def test_interests(client):
    answer = client.interests(["item-3", "unknown", "item-4"])
    assert answer.history_items == ("item-3", "item-4")
    assert answer.vectors == {"id": ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))}
    # The column of the unknown item is not among them.
    assert answer.allocation == {"id": ((0.0, 2.0), (3.0, 5.0))}


def test_filter_seen_can_be_switched_off(client):
    answer = client.recommend(["item-11"], k=1, id_weight=1.0, filter_seen=False)
    assert [item.item_id for item in answer.items] == ["item-11"]


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    histories=st.lists(st.lists(ITEM_IDS, max_size=6), min_size=1, max_size=4),
    k=st.integers(1, 20),
    id_weight=st.none() | st.floats(0, 1, width=32),
    filter_seen=st.booleans(),
    data=st.data(),
)
def test_answers_are_those_of_the_model_in_this_process(
    client, toy_model, histories, k, id_weight, filter_seen, data
):
    rows = len(histories)
    exclude = data.draw(st.lists(st.lists(ITEM_IDS, max_size=3), min_size=rows, max_size=rows))
    answers = client.recommend_many(histories, k, exclude, id_weight, filter_seen)
    for history, excluded, answer in zip(histories, exclude, answers, strict=True):
        expected = toy_model.recommend(
            tf.constant([history], tf.string, shape=[1, len(history)]),
            tf.constant([excluded], tf.string, shape=[1, len(excluded)]),
            k,
            -1.0 if id_weight is None else id_weight,
            filter_seen,
        )
        expected = {name: tensor.numpy()[0] for name, tensor in expected.items()}
        found = [rank for rank, item_id in enumerate(expected["item_ids"]) if item_id]
        assert answer.unknown_items == expected["unknown_items"]
        assert answer.items == tuple(
            Recommendation(
                item_id=expected["item_ids"][rank].decode(),
                score=expected["scores"][rank],
                interest=expected["interest"][rank],
                id_score=expected["view_scores"][rank, 0],
                mm_score=expected["view_scores"][rank, 1],
                because=tuple(each.decode() for each in expected["because"][rank] if each),
            )
            for rank in found
        )


def test_no_histories_no_answers(client):
    assert client.recommend_many([]) == []


def test_predict(client, toy_model):
    outputs = client.predict("serving_default", {"history": [["item-3", "item-4"]]})
    expected = toy_model.serving_default(
        tf.constant([["item-3", "item-4"]]), tf.constant([], tf.string, shape=[1, 0])
    )
    assert set(outputs) == set(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(outputs[name], tensor.numpy())
        assert outputs[name].dtype == tensor.numpy().dtype


def test_status_and_metadata(client):
    (status,) = client.status()
    assert (status.version, status.state, status.error) == (7, "AVAILABLE", "")
    signature = client.metadata()["serving_default"]
    history, exclude = signature.inputs["history"], signature.inputs["exclude"]
    assert (history.dtype, history.shape, history.optional) == ("string", (-1, -1), False)
    assert exclude.optional
    assert signature.outputs["scores"].dtype == "float32"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"history": ["a"], "k": 0}, "k must be at least 1 .*not 0"),
        ({"history": ["a"], "k": 2.5}, "k must be a whole number, not 2.5"),
        ({"history": ["a"], "k": True}, "k must be a whole number, not True"),
        ({"history": [1193]}, r"strings, not 1193 \(int\): write '1193'"),
        ({"history": ["a", ""]}, 'history must not hold ""'),
        ({"history": "item-1"}, "history must be a list of item ids, not the single 'item-1'"),
        ({"history": ["a"], "exclude": [7]}, "exclude must hold item ids as strings, not 7"),
        ({"history": ["a"], "exclude": "b"}, "exclude must be a list of item ids"),
        ({"history": ["a"], "id_weight": 1.5}, "id_weight must be between 0 and 1, not 1.5"),
        ({"history": ["a"], "diversity": -0.1}, "diversity must be between 0 and 1, not -0.1"),
        ({"history": ["a"], "unavailable": "b"}, "unavailable must be a list of item ids"),
        ({"history": ["a"], "unavailable": [""]}, 'unavailable must not hold ""'),
        ({"history": ["a"], "k": 2**31}, "k must be at least 1 and at most"),
        ({"history": ["a"], "id_weight": float("nan")}, "id_weight must be between 0 and 1"),
    ],
)
def test_wrong_arguments_are_not_sent(arguments, text):
    # No server listens at this address: the error shows that nothing was sent.
    with (
        RecommenderClient("127.0.0.1:1") as client,
        pytest.raises(InvalidRequest, match=text) as caught,
    ):
        client.recommend(**arguments)
    assert caught.value.advice == "Nothing was sent to the server."


def test_one_exclusion_list_for_each_history(client):
    with pytest.raises(InvalidRequest, match="there are 1 for 2 histories"):
        client.recommend_many([["a"], ["b"]], exclude=[["c"]])


def test_predict_with_what_is_no_tensor(client):
    with pytest.raises(InvalidRequest, match="input 'x' is not a tensor"):
        client.predict("double", {"x": [[1.0], [1.0, 2.0]]})


@pytest.mark.parametrize("ask", [lambda c: c.recommend(["a"]), lambda c: c.status()])
def test_unknown_model(server, ask):
    with (
        RecommenderClient(server.target, "other", timeout=60.0) as client,
        pytest.raises(ModelNotFound, match="other") as caught,
    ):
        ask(client)
    assert caught.value.code is grpc.StatusCode.NOT_FOUND
    assert caught.value.target == server.target
    assert "status()" in caught.value.advice


def test_unknown_version(server):
    with (
        RecommenderClient(server.target, timeout=60.0, version=9) as client,
        pytest.raises(ModelNotFound, match=r"Specific\(recommender, 9\)"),
    ):
        client.recommend(["a"])


@pytest.mark.parametrize(
    ("signature", "inputs"), [("double", {"x": np.ones(2)}), ("other", {"x": [1.0]})]
)
def test_invalid_request(client, signature, inputs):
    with pytest.raises(InvalidRequest, match="metadata()"):
        client.predict(signature, inputs)


def test_deadline(server, tmp_path):
    release = tmp_path / "release"
    with RecommenderClient(server.target, timeout=0.2) as client:
        with pytest.raises(DeadlineExceeded, match="longer timeout"):
            client.predict("hold", {"started": str(tmp_path / "started"), "release": str(release)})
        release.touch()


@pytest.fixture
def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_server_down(free_port):
    with RecommenderClient(f"127.0.0.1:{free_port}", timeout=60.0) as client:
        with pytest.raises(ServerUnavailable, match="See whether the server runs") as caught:
            client.recommend(["a"])
        assert isinstance(caught.value, ServingError)
        with pytest.raises(ServerUnavailable, match="not ready after 0.3 seconds"):
            client.wait_until_ready(timeout=0.3)


def test_wait_until_ready(server):
    with RecommenderClient(server.target) as client:
        client.wait_until_ready(timeout=60.0)
    with (
        RecommenderClient(server.target, "other") as client,
        pytest.raises(ModelNotFound, match="Could not find any versions of model other"),
    ):
        client.wait_until_ready(timeout=1.0)


def test_one_client_for_many_threads(client):
    answers: list = []

    def ask(number: int) -> None:
        answers.append((number, client.predict("double", {"x": [float(number)]})["y"].item()))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [(number, 2.0 * number) for number in range(32)]


def test_a_model_of_somebody_else(start_proxy):
    """It has a signature of the name, which gives nothing that is asked for: that is said."""
    proxy, target = start_proxy()
    proxy.answer = b""
    with (
        RecommenderClient(target, timeout=60.0) as client,
        pytest.raises(UnexpectedAnswer, match="no output 'history_items'") as caught,
    ):
        client.interests(["item-1"])
    assert "exported by this project" in caught.value.advice


@pytest.mark.parametrize("failures", [1, 3])
def test_an_unavailable_server_is_asked_again(start_proxy, failures):
    proxy, target = start_proxy()
    proxy.codes = [UNAVAILABLE] * failures
    with RecommenderClient(target, timeout=60.0) as client:
        assert client.recommend(["item-1"]).model_version == 7
    assert proxy.calls == failures + 1


def test_attempts_end(start_proxy):
    proxy, target = start_proxy()
    proxy.codes = [UNAVAILABLE] * 9
    with (
        RecommenderClient(target, timeout=60.0, retries=RetryPolicy(attempts=3)) as client,
        pytest.raises(ServerUnavailable, match="by the proxy"),
    ):
        client.recommend(["item-1"])
    assert proxy.calls == 3


def test_retries_can_be_switched_off(start_proxy):
    proxy, target = start_proxy()
    proxy.codes = [UNAVAILABLE]
    with (
        RecommenderClient(target, timeout=60.0, retries=None) as client,
        pytest.raises(ServerUnavailable),
    ):
        client.recommend(["item-1"])
    assert proxy.calls == 1


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code not in (UNAVAILABLE, grpc.StatusCode.OK)]
)
def test_no_other_failure_is_tried_again(start_proxy, code):
    proxy, target = start_proxy()
    proxy.codes = [code]
    with RecommenderClient(target, timeout=60.0) as client:
        with pytest.raises(ServingError) as caught:
            client.recommend(["item-1"])
        assert caught.value.code is code
        assert proxy.calls == 1


def test_the_deadline_holds_for_all_attempts(start_proxy):
    """With waits of ten seconds, a call of a third of a second ends long before they are over."""
    proxy, target = start_proxy()
    proxy.codes = [UNAVAILABLE] * 9
    waits = RetryPolicy(attempts=5, initial_backoff=10.0, max_backoff=10.0)
    with (
        RecommenderClient(target, timeout=0.3, retries=waits) as client,
        pytest.raises((DeadlineExceeded, ServerUnavailable)),
    ):
        client.recommend(["item-1"])
    assert proxy.calls <= 2


def test_retries_do_not_hold_down_a_server_that_fails_all(start_proxy):
    proxy, target = start_proxy()
    proxy.codes = [UNAVAILABLE] * 1000
    quick = RetryPolicy(attempts=5, initial_backoff=0.01, max_backoff=0.01)
    with RecommenderClient(target, timeout=60.0, retries=quick) as client:
        for _ in range(100):
            with pytest.raises(ServerUnavailable):
                client.recommend(["item-1"])
    # Five attempts each would be 500.
    assert proxy.calls < 160


def test_one_connection_for_all_calls(start_proxy):
    proxy, target = start_proxy()
    with RecommenderClient(target, timeout=60.0) as client:
        for _ in range(5):
            client.recommend(["item-1"])
            client.status()
    assert proxy.calls == 10
    assert len(proxy.peers) == 1


def test_several_servers_of_one_name_are_asked_by_turns(start_proxy):
    """And one of them that fails costs no call: the next attempt goes to another."""
    (first, target), (second, other) = start_proxy(), start_proxy()
    with RecommenderClient(f"ipv4:{target},{other}", timeout=60.0) as client:
        client.wait_until_ready()
        while not (first.calls and second.calls):
            client.recommend(["item-1"])
        first.codes = [UNAVAILABLE] * 3
        while first.codes:
            client.recommend(["item-1"])


@pytest.mark.parametrize(
    "arguments",
    [
        {"attempts": 0},
        {"attempts": 6},
        {"initial_backoff": 2.0},
        {"initial_backoff": 0.001},
        {"multiplier": 0.5},
    ],
)
def test_impossible_retries(arguments):
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        RetryPolicy(**arguments)


def test_version_or_label():
    with pytest.raises(ConfigError, match="not both"):
        RecommenderClient("localhost:1", version=1, version_label="stable")


def test_version_label_is_sent(server):
    with (
        RecommenderClient(server.target, timeout=60.0, version_label="canary") as client,
        pytest.raises(InvalidRequest, match="Unrecognized servable version label: canary"),
    ):
        client.recommend(["item-1"])
