"""Asks a served recommender with a client that is not ours; runs where that client is installed.

    python foreign_clients.py ovmsclient|min-tfs-client GRPC_TARGET REST_TARGET MODEL VERSION

Prints one JSON object: for each way of asking, what was recommended to one user, and how a wrong
request was refused. Needs nothing of this project.
"""

import json
import sys

import numpy as np

HISTORY, EXCLUDE = [["item-1", "item-2"]], [["item-3"]]


def with_ovmsclient(grpc_target, rest_target, model, version):
    """Predict, metadata, status and a refusal, over gRPC and over REST."""
    import ovmsclient

    found = {}
    clients = {
        "grpc": ovmsclient.make_grpc_client(grpc_target),
        "rest": ovmsclient.make_http_client(rest_target),
    }
    for name, client in clients.items():
        inputs = {"history": np.array(HISTORY, np.bytes_), "exclude": np.array(EXCLUDE, np.bytes_)}
        answer = client.predict(inputs, model, version, timeout=60)
        metadata = client.get_model_metadata(model, version, timeout=60)
        status = client.get_model_status(model, version, timeout=60)
        try:
            client.predict(inputs, "other", version, timeout=60)
        except Exception as error:
            refusal = f"{type(error).__name__}: {error}"
        found[name] = {
            "items": [text.decode() for text in np.asarray(answer["item_ids"])[0].astype(bytes)],
            "scores": np.asarray(answer["scores"])[0].tolist(),
            "inputs": sorted(_default_signature(metadata)["inputs"]),
            "state": status[version]["state"],
            "refusal": refusal,
        }
    return found


def _default_signature(metadata):
    # Over REST it looks for OpenVINO's spelling and gives TensorFlow Serving's back as it came.
    if "metadata" in metadata:
        return metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    return metadata


def with_min_tfs_client(grpc_target, rest_target, model, version):
    """Predict and a refusal, over gRPC."""
    import grpc
    from min_tfs_client.requests import TensorServingClient
    from min_tfs_client.tensors import tensor_proto_to_ndarray

    host, port = grpc_target.split(":")
    client = TensorServingClient(host=host, port=int(port))
    inputs = {"history": np.array(HISTORY), "exclude": np.array(EXCLUDE)}
    answer = client.predict_request(model, inputs, timeout=60, model_version=version)
    try:
        client.predict_request("other", inputs, timeout=60)
    except grpc.RpcError as error:
        refusal = f"{error.code().name}: {error.details()}"
    return {
        "grpc": {
            "items": [text.decode() for text in answer.outputs["item_ids"].string_val],
            "scores": tensor_proto_to_ndarray(answer.outputs["scores"])[0].tolist(),
            "refusal": refusal,
        }
    }


if __name__ == "__main__":
    ask = {"ovmsclient": with_ovmsclient, "min-tfs-client": with_min_tfs_client}[sys.argv[1]]
    print(json.dumps(ask(*sys.argv[2:5], int(sys.argv[5]))))
