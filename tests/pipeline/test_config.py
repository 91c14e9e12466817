"""Configuration files: what is read, and what the errors say."""

from pathlib import Path

import pytest
import yaml

from bivrec_tf.errors import ConfigError
from pipeline.config import load_config

VALID = {
    "name": "shop",
    "interactions": {"path": "orders.csv"},
    "items": {"path": "sub/items.csv"},
    "modalities": [{"name": "text", "kind": "text", "columns": ["name"]}],
}


def write(tmp_path, **changes):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**VALID, **changes}))
    return path


def test_paths_start_at_the_configuration_file(tmp_path):
    config = load_config(write(tmp_path))
    assert config.interactions.path == str(tmp_path / "orders.csv")
    assert config.items.path == str(tmp_path / "sub" / "items.csv")
    uri = load_config(write(tmp_path, interactions={"path": "gs://bucket/orders.csv"}))
    assert uri.interactions.path == "gs://bucket/orders.csv"


def test_the_models_history_rules_the_windows(tmp_path):
    config = load_config(write(tmp_path, model={"max_history": 20}))
    assert config.sequences.max_history == 20
    assert config.sequences.window_overlap == 10


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"trainig": {}}, "trainig"),
        ({"training": {"epochs": 0}}, "training.epochs"),
        ({"model": {"scales": [1, 1]}}, "distinct patch lengths"),
        ({"model": {"dimension": 10, "attention_heads": 4}}, "not a multiple"),
        (
            {"training": {"warm_start": "big/1", "item_initialisation": "random"}},
            "needs item_initialisation: co_occurrence",
        ),
        ({"sequences": {"max_history": 5}}, "set model.max_history instead"),
        ({"sequences": {"protocol": "random"}}, "sequences.protocol"),
        ({"modalities": []}, "modalities` is empty"),
        ({"modalities": [{"name": "text", "kind": "sound"}]}, "modalities.0"),
        ({"modalities": [*VALID["modalities"], VALID["modalities"][0]]}, "written twice"),
        ({"serving": {"model_name": "../up"}}, "serving.model_name"),
        ({"name": "a name"}, "name"),
    ],
)
def test_errors_name_the_file_and_the_key(tmp_path, changes, told):
    path = write(tmp_path, **changes)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert str(path) in str(error.value)
    assert told in str(error.value)


@pytest.mark.parametrize("content", [b"- a\n- list\n", b"key: [unclosed", b"", b"name: \xff"])
def test_files_that_are_no_configuration_are_refused_by_name(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="config.yaml"):
        load_config(path)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml.*No such file"):
        load_config(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parents[2] / "configs").glob("*.yaml")), ids=lambda f: f.stem
)
def test_configurations_that_are_shipped_are_valid(file):
    assert load_config(file).name == file.stem
