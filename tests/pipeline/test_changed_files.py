"""The same table with other files behind its paths: the pipeline must notice."""

import os
import sys
import textwrap

import numpy as np
import pytest
import yaml

from components.content_encoder.external_files import fingerprint
from pipeline.config import load_config

ENCODER = textwrap.dedent(
    """
    import numpy as np
    from bivrec_tf.encoders import Encoder

    class SizeEncoder(Encoder):
        content = "image"
        name = "size"
        dimension = 1
        fingerprint = "size-1"

        def encode(self, batch):
            return np.array([[len(content)] for content in batch], np.float32)
    """
)


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A folder with tables, pictures, features, and the configuration that names them."""
    (tmp_path / "posters").mkdir()
    rows = ["sku,poster"]
    for number in range(3):
        (tmp_path / "posters" / f"{number}.pic").write_bytes(b"\0" * (number + 1))
        rows.append(f"{number},posters/{number}.pic")
    (tmp_path / "products.csv").write_text("\n".join([*rows, "3,", "4,posters/4.pic"]) + "\n")
    (tmp_path / "orders.csv").write_text("user_id,item_id,timestamp\na,1,1\n")
    np.save(tmp_path / "audio.npy", np.ones([5, 2], np.float32))
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "size_encoder.py").write_text(ENCODER)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    sys.modules.pop("size_encoder", None)
    values = {
        "name": "shop",
        "interactions": {"path": "orders.csv"},
        "items": {"path": "products.csv", "columns": {"item_id": "sku"}},
        "modalities": [
            {"name": "image", "kind": "image", "column": "poster", "max_unreadable": 0.5}
            | {"encoder": "size_encoder:SizeEncoder"},
            {"name": "audio", "kind": "precomputed", "file": "audio.npy"},
        ],
    }
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(values))
    return tmp_path


def test_the_fingerprint_follows_every_file_that_is_named(shop):
    config = load_config(shop / "shop.yaml")
    seen = {fingerprint(config.content, config.items.path)}

    def is_new():
        value = fingerprint(config.content, config.items.path)
        new = value not in seen
        seen.add(value)
        return new

    assert not is_new()
    (shop / "posters" / "unused.pic").write_bytes(b"\0")
    assert not is_new(), "files that nobody names do not count"
    (shop / "posters" / "1.pic").write_bytes(b"\0 longer")
    assert is_new()
    os.utime(shop / "posters" / "2.pic", (1, 1))
    assert is_new(), "the same size at another time"
    (shop / "posters" / "4.pic").write_bytes(b"\0")
    assert is_new(), "a picture that was missing"
    (shop / "posters" / "0.pic").unlink()
    assert is_new(), "a picture that is gone"
    np.save(shop / "audio.npy", np.zeros([5, 2], np.float32))
    assert is_new()
    (shop / "products.csv").unlink()
    is_new()
    assert not is_new(), "a table that cannot be read is told by the component that reads it"


@pytest.mark.slow
def test_a_picture_that_changed_is_encoded_although_the_table_did_not(shop):
    from tfx.orchestration.local.local_dag_runner import LocalDagRunner
    from tfx.orchestration.metadata import Metadata, sqlite_metadata_connection_config
    from tfx.orchestration.pipeline import Pipeline

    from components.artifacts import COUNTS_PROPERTY
    from components.content_encoder.modalities_file import read_modalities
    from pipeline.dag import create_components
    from pipeline.local_runner import Output

    config = load_config(shop / "shop.yaml")

    def run():
        """Runs the two components of the real DAG; returns the counts of all executions."""
        nodes = create_components(config, Output(shop / "output").paths(config))
        wanted = [node for node in nodes if node.id in ("ItemGen", "ContentEncoder")]
        metadata = sqlite_metadata_connection_config(str(shop / "metadata.sqlite"))
        pipeline = Pipeline(
            pipeline_name="shop",
            pipeline_root=str(shop / "pipeline"),
            components=wanted,
            enable_cache=True,
            metadata_connection_config=metadata,
            beam_pipeline_args=list(config.beam_pipeline_args),
        )
        LocalDagRunner().run(pipeline)
        with Metadata(metadata) as handle:
            artifacts = handle.store.get_artifacts_by_type("Examples")
        counts = {}
        for artifact in artifacts:
            if "ContentEncoder" in artifact.uri:
                told = artifact.custom_properties[COUNTS_PROPERTY].string_value
                counts[artifact.uri] = yaml.safe_load(told)
        return counts

    first = run()
    assert len(first) == 1
    ((uri, counts),) = first.items()
    assert (counts["image_encoded"], counts["image_unreadable"]) == (3, 1)
    assert (counts["audio_present"], counts["items"]) == (5, 5)
    told = read_modalities(uri)
    assert told["image"] == {
        "dimension": 1,
        "kind": "image",
        "encoder": "size",
        "fingerprint": "size-1",
    }
    assert told["audio"]["dimension"] == 2
    assert run() == first, "nothing changed: the execution is taken for the one that was done"
    (shop / "posters" / "1.pic").write_bytes(b"\0 another picture")
    second = run()
    (new,) = second.keys() - first.keys()
    assert (second[new]["image_encoded"], second[new]["image_cache_hits"]) == (1, 2)
