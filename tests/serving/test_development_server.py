"""The server's parts in this process: versions that come and go, and tensors."""

import logging
import shutil
import threading

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import saved_model_pb2

from serving.client import RecommenderClient
from serving.development_server import DevelopmentServer, tensors
from serving.development_server.server import NoVersionLoadedError, PortUnavailableError
from serving.development_server.versions import VersionManager


def test_start_answer_stop(base_path):
    with DevelopmentServer(base_path, "toy", poll_seconds=0) as server:
        assert server.versions == {"toy": 1}
        with RecommenderClient(server.target, "toy", timeout=60.0) as client:
            assert client.predict("double", {"x": [2.0]})["y"].tolist() == [4.0]


def test_no_version(tmp_path):
    (tmp_path / "latest").mkdir()
    server = DevelopmentServer(tmp_path, startup_seconds=0)
    with pytest.raises(NoVersionLoadedError, match="no folder there is named by a version number"):
        server.start()


def test_port_that_is_taken(base_path, server):
    port = int(server.target.rpartition(":")[2])
    second = DevelopmentServer(base_path, port=port)
    with pytest.raises(PortUnavailableError, match=f"cannot listen on 127.0.0.1:{port}"):
        second.start()


def test_first_version_may_come_late(base_path, tmp_path, wait_for):
    late = tmp_path / "late"
    late.mkdir()
    server = DevelopmentServer(late, startup_seconds=120)
    starter = threading.Thread(target=server.start)
    starter.start()
    shutil.move(base_path / "1", late / "5")
    starter.join()
    assert server.versions == {"recommender": 5}
    server.stop()


def served(versions: VersionManager) -> int | None:
    return None if versions.current is None else versions.current.version


@pytest.fixture
def versions(base_path) -> VersionManager:
    manager = VersionManager(base_path)
    manager.refresh(wait_until_unchanged=False)
    assert served(manager) == 1
    return manager


def test_names_that_are_no_versions(base_path, exports):
    for name in ["-3", "1.5", "v9", "٣", "99999999999999999999", "9999999999999999999"]:
        shutil.copytree(exports[1.0], base_path / name)
    (base_path / "8").write_text("a file")
    versions = VersionManager(base_path)
    versions.refresh(wait_until_unchanged=False)
    assert served(versions) == 1
    assert list(versions.states) == [1]


def test_newest_version_counts_by_number(base_path, exports):
    shutil.copytree(exports[1.0], base_path / "9")
    shutil.copytree(exports[1.0], base_path / "00010")
    versions = VersionManager(base_path)
    versions.refresh(wait_until_unchanged=False)
    assert served(versions) == 10


def test_a_version_that_is_there_twice(base_path, exports, caplog):
    shutil.copytree(exports[2.0], base_path / "002")
    shutil.copytree(exports[2.0], base_path / "2")
    versions = VersionManager(base_path)
    versions.refresh(wait_until_unchanged=False)
    assert served(versions) == 2
    assert "version 2 is there twice, as 002 and 2; the latter is used" in caplog.text


def test_a_folder_is_left_alone_while_it_changes(versions, base_path, exports):
    shutil.copytree(exports[2.0], base_path / "2")
    versions.refresh()
    assert served(versions) == 1
    (base_path / "2" / "assets.extra").mkdir()
    versions.refresh()
    assert served(versions) == 1
    versions.refresh()
    assert served(versions) == 2


def test_a_damaged_version_is_tried_again_when_it_changes(versions, base_path, exports, caplog):
    shutil.copytree(exports[2.0], base_path / "2")
    data = next((base_path / "2" / "variables").glob("variables.data-*"))
    whole = data.read_bytes()
    data.write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            versions.refresh()
    assert served(versions) == 1
    assert caplog.text.count("version 2 is skipped") == 1
    assert versions.problems().keys() == {2}
    data.write_bytes(whole)
    versions.refresh()
    versions.refresh()
    assert served(versions) == 2
    assert versions.problems() == {}


def test_the_older_version_comes_back_when_the_newer_is_deleted(versions, base_path, exports):
    shutil.copytree(exports[2.0], base_path / "2")
    versions.refresh(wait_until_unchanged=False)
    assert served(versions) == 2
    shutil.rmtree(base_path / "2")
    versions.refresh()
    assert served(versions) == 1
    shutil.rmtree(base_path / "1")
    versions.refresh()
    assert served(versions) == 1


def test_a_model_without_the_serving_tag(versions, base_path, exports):
    shutil.copytree(exports[2.0], base_path / "2")
    path = base_path / "2" / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    saved_model.meta_graphs[0].meta_info_def.tags[:] = ["train"]
    path.write_bytes(saved_model.SerializeToString())
    versions.refresh(wait_until_unchanged=False)
    assert "holds no graph with the tag 'serve'" in versions.problems()[2]


@pytest.mark.parametrize(
    "dtype",
    [
        *(tf.float16, tf.bfloat16, tf.float32, tf.float64),
        *(tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint16, tf.uint32, tf.uint64),
        *(tf.bool, tf.complex64, tf.complex128),
    ],
    ids=lambda dtype: dtype.name,
)
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3)])
def test_tensors_survive_the_way_there_and_back(dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype.as_numpy_dtype)
    proto = tensor_pb2.TensorProto()
    tensors.encode(array, dtype.as_datatype_enum, proto)
    assert proto.tensor_content == b""
    for sent in (proto, tf.make_tensor_proto(array, dtype)):
        np.testing.assert_array_equal(tf.make_ndarray(sent), array)
        decoded = tensors.decode("x", sent)
        assert decoded.dtype == array.dtype
        np.testing.assert_array_equal(decoded, array)


def test_strings_survive_the_way_there_and_back():
    array = np.array([[b"", b"\xff\x00"], ["ü".encode(), b"x"]], object)
    proto = tensor_pb2.TensorProto()
    tensors.encode(array, types_pb2.DT_STRING, proto)
    np.testing.assert_array_equal(tf.make_ndarray(proto), array)
    np.testing.assert_array_equal(tensors.decode("x", proto), array)
