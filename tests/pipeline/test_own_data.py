"""The shop's pipeline: what it counts, what it serves, what it refuses to push."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
import yaml

from bivrec_tf import features
from bivrec_tf.data import parse_sequences, read_examples
from serving.process import ServerProcess

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def result(shop):
    from pipeline.local_runner import Output
    from pipeline.results import read_result

    return read_result(Output(shop.output).metadata)


def test_the_model_is_blessed_pushed_and_better_than_popularity(shop, result):
    assert result.blessed and result.pushed_to is not None
    assert shop.versions() == [result.pushed_to.name]
    for metric in ("recall_at_20", "ndcg_at_20"):
        assert result.metrics[()][f"{metric}_over_popularity"] > 0.1
    assert result.serving_verdict["requests"] == 20
    assert result.serving_verdict["differences"] == []


def test_every_row_is_accounted_for(shop, result):
    sequences, content = result.counts["SequenceBuilder"], result.counts["ContentEncoder"]
    items = result.counts["ItemGen"]
    assert sequences["dropped_duplicate"] == shop.duplicate_rows
    dropped = sum(count for name, count in sequences.items() if name.startswith("dropped_"))
    assert sequences["read"] == sequences["interactions"] + dropped
    assert items["dropped_identical_duplicate"] == 1
    assert content["text_missing"] == shop.missing_texts
    assert sequences["items_without_row"] == shop.unlisted_products
    assert sequences["interactions_without_item_row"] > 0
    assert sequences["items"] == 40, "sold products count, listed or not"


def test_a_run_leaves_nothing_in_the_temporary_folder(shop):
    """TFX would leave a copy of itself there, of 50 MB, for every component that runs Beam."""
    assert list(shop.temporary.iterdir()) == []


def test_metrics_by_slice_are_reported(result):
    slices = {key[0][0] for key in result.metrics if key}
    assert slices == {features.HISTORY_LENGTH_BUCKET, features.TARGET_POPULARITY}


def split_files(shop, split):
    [folder] = (shop.output / "pipeline" / "SequenceBuilder" / "sequences").glob("*")
    return [str(path) for path in (folder / f"Split-{split}").glob("*")]


def test_the_evaluators_recall_is_what_the_served_lists_give(shop, result):
    """The gate's number, computed again from nothing but recommended ids."""
    model = tf.saved_model.load(str(result.pushed_to))
    recommend = model.signatures[features.SERVING_DEFAULT]
    hits, examples = [], 0
    for parsed in map(parse_sequences, read_examples(split_files(shop, "test")).batch(1)):
        history = parsed[features.HISTORY].to_tensor("")
        answer = recommend(history=history, exclude=tf.constant([[""]]))
        best = set(answer[features.ITEM_IDS].numpy()[0])
        targets = parsed[features.TARGET].values.numpy()
        hits.append(np.mean([target in best for target in targets]))
        examples += 1
    assert examples > 50
    assert result.metrics[()]["recall_at_20"] == pytest.approx(np.mean(hits), abs=1e-6)


def test_training_and_serving_map_ids_alike(shop, result):
    """Rows of the exported model are those of Transform's vocabulary, then the new products."""
    [vocabulary] = (shop.output / "pipeline" / "Transform" / "transform_graph").glob(
        "*/transform_fn/assets/items"
    )
    ids = vocabulary.read_text().split("\n")[:-1]
    example = tf.train.Example()
    asked = [*ids, "2000", "2001", "no such sku"]
    assert "1039" in ids, "the product without a row has interactions, so it has an id row"
    example.features.feature[features.HISTORY].bytes_list.value.extend(i.encode() for i in asked)
    model = tf.saved_model.load(str(result.pushed_to))
    rows = model.signatures[features.TRANSFORM_FEATURES](
        tf.constant([example.SerializeToString()])
    )[features.HISTORY]
    assert rows.numpy().tolist() == [[*range(1, len(ids) + 3), 0]]


def test_recommend_answers_for_a_user_of_the_table_with_titles(shop, bivrec):
    with ServerProcess(shop.served) as server:
        options = ("--config", shop.config, "--k", 3)
        told = bivrec("recommend", "--target", server.target, "--user", 7, *options)
        answer = bivrec(
            *("recommend", "--target", server.target, "--history", "1004,1005,1006"),
            *("--format", "json", *options),
        )
        best = [item["item_id"] for item in json.loads(answer.stdout)["items"]]
        without = bivrec(
            *("recommend", "--target", server.target, "--history", "1004,1005,1006"),
            *("--unavailable", f"{best[0]}, no such sku", "--format", "json", *options),
        )
        stranger = bivrec("recommend", "--target", server.target, "--user", "nobody", *options)
        # What the first requests would pay for was paid for when the model was loaded.
        assert "6 warm-up requests" in server.log()
    assert told.returncode == 0, told.stderr
    assert "Recommendations for user 7" in told.stdout
    left = [item["item_id"] for item in json.loads(without.stdout)["items"]]
    assert left[:2] == best[1:] and best[0] not in left
    assert len(best) == 3 and not {"1004", "1005", "1006"} & set(best)
    titles = [item["title"] for item in json.loads(answer.stdout)["items"]]
    assert all(title for title in titles)
    assert stranger.returncode == 2
    assert "no interactions of user 'nobody'" in stranger.stderr


def test_a_second_run_trains_and_pushes_nothing_until_the_pushed_model_is_gone(shop, bivrec):
    before = shop.versions()
    again = bivrec("run", "--config", shop.config, "--output", shop.output)
    assert again.returncode == 0, again.stdout + again.stderr
    assert shop.versions() == before
    unchanged = [line for line in again.stdout.splitlines() if line.endswith("unchanged")]
    for component in ("ItemGen", "SequenceBuilder", "ContentEncoder", "Transform", "Trainer"):
        assert any(f" {component} " in line for line in unchanged), component
    shutil.rmtree(shop.served / before[0])
    restored = bivrec("run", "--config", shop.config, "--output", shop.output)
    assert restored.returncode == 0, restored.stdout + restored.stderr
    assert len(shop.versions()) == 1
    assert f"Pushed to {shop.served / shop.versions()[0]}" in restored.stdout.replace("\n", "")


def test_a_deliberately_bad_model_is_neither_blessed_nor_pushed(shop, bivrec):
    values = yaml.safe_load(shop.config.read_text())
    # One epoch of steps too small to learn anything, from random vectors. Forty products
    # rank by themselves nearly as well as popularity ranks them, so the floor is raised too.
    values["training"] |= {"epochs": 1, "learning_rate": 1e-9, "item_initialisation": "random"}
    values["gate"] = {"minimum_gain_over_popularity": 0.3}
    bad = shop.folder / "bad.yaml"
    bad.write_text(yaml.safe_dump(values))
    before = shop.versions()
    finished = bivrec("run", "--config", bad, "--output", shop.output)
    assert finished.returncode == 3, finished.stdout + finished.stderr
    assert "Gate not passed: ndcg_at_20_over_popularity" in finished.stdout
    # The latest blessed model, of the first run, was the one to compare with.
    assert "Gate not passed: ndcg_at_20:" in finished.stdout
    assert "not pushed" in finished.stdout
    assert shop.versions() == before


def test_one_output_folder_holds_one_pipeline(shop, bivrec):
    other = shop.folder / "other.yaml"
    other.write_text(shop.config.read_text().replace("corner-shop", "other-shop"))
    finished = bivrec("run", "--config", other, "--output", shop.output)
    assert finished.returncode == 2
    assert "holds the pipeline 'corner-shop', not 'other-shop'" in finished.stderr
