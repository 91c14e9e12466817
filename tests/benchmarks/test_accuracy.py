"""`benchmarks.accuracy` as it is run: a process of its own, and what it leaves behind."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import click
import numpy as np
import pytest
import yaml

from benchmarks.accuracy import joined, slices, with_noise
from benchmarks.settings import read_settings, validated
from bivrec_tf.catalogue import ItemCatalogue
from bivrec_tf.models import MODEL_NAMES

ROOT = Path(__file__).parents[2]
FAST = [
    "model.dimension=16",
    "model.num_interests=2",
    "model.max_history=8",
    "training.epochs=2",
    "training.learning_rate_warmup_steps=0",
    "training.batch_size=16",
]


def run(data_root, folder, *arguments):
    changes = [part for change in FAST for part in ("--set", change)]
    # As in a user's shell: what this process has chosen is not chosen there.
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.accuracy", "--root", str(data_root)]
        + ["--cache", str(folder / "cache"), "--threads", "1"]
        + [*changes, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where all runs of this file prepare their data, once."""
    return tmp_path_factory.mktemp("accuracy")


@pytest.fixture(scope="module")
def trained(data_root, folder):
    """The result and the ranks of the two-view model, exported to `source`, and of popularity."""
    found = {}
    for model, more in (("bivrec", ["--export", str(folder / "source")]), ("popularity", [])):
        arguments = ["--data", "walks", "--model", model, "--seed", "1", "--noise", "0.5", *more]
        out = folder / f"walks-{model}-1.json"
        done = run(data_root, folder, *arguments, "--insert", "0.5", "--json", str(out))
        assert done.returncode == 0, done.stderr
        with np.load(folder / "ranks" / f"{out.stem}.npz") as ranks:
            kept = {part: ranks[part].astype(int) for part in ranks}
            found[model] = json.loads(out.read_text()), kept
    return found


def leave_one_out(data_root):
    """Test history and target of every user, and training counts, written once more."""
    import pandas as pd

    frame = pd.read_parquet(data_root / "walks" / "interactions.parquet")
    frame = frame.sort_values("timestamp", kind="stable").drop_duplicates(["user_id", "item_id"])
    size = None
    while size != len(frame):
        size = len(frame)
        for column in ("user_id", "item_id"):
            frame = frame[frame.groupby(column)[column].transform("size") >= 5]
    users = [events["item_id"].tolist() for _, events in frame.groupby("user_id")]
    counts = Counter(item for user in users for item in user[:-2])
    return [(user[:-1], user[-1]) for user in users], counts


def ndcg_and_recall(ranks, k):
    """Of examples with one target."""
    hits = ranks <= k
    return float(np.mean(hits / np.log2(1 + ranks))), float(hits.mean())


@pytest.mark.slow
def test_popularity_has_the_metrics_of_a_ranking_by_counts(data_root, trained):
    examples, counts = leave_one_out(data_root)
    order = sorted(counts, key=lambda item: (-counts[item], item))
    expected = []
    for seen, target in examples:
        left = [item for item in order if item not in seen]
        expected.append(left.index(target) + 1 if target in left else np.iinfo(np.int32).max)
    result, ranks = trained["popularity"]
    # Ranks are kept as far as the longest list reaches, of 50.
    np.testing.assert_array_equal(ranks["test"][:, 0], np.minimum(expected, 51))
    unfiltered = [order.index(target) + 1 for _, target in examples]
    np.testing.assert_array_equal(ranks["test_unfiltered"][:, 0], np.minimum(unfiltered, 51))
    for label, own in (("test", expected), ("test_unfiltered", unfiltered)):
        for k in (10, 20):
            ndcg, recall = ndcg_and_recall(np.array(own), k)
            assert result[label][f"ndcg_at_{k}"] == pytest.approx(ndcg, abs=1e-6)
            assert result[label][f"recall_at_{k}"] == pytest.approx(recall, abs=1e-6)


@pytest.mark.slow
def test_the_result_tells_all_that_repeats_and_compares_it(data_root, trained):
    result, ranks = trained["bivrec"]
    examples, _ = leave_one_out(data_root)
    assert result["configuration"]["model"]["dimension"] == 16
    assert result["configuration"]["training"]["seed"] == 1
    assert result["revision"] and len(result["data_fingerprint"]) == 16
    assert len(result["content_fingerprint"]) == 16
    assert trained["popularity"][0]["content_fingerprint"] is None
    machine = result["machine"]
    assert machine["threads"] == 1 and machine["cores"] == os.cpu_count()
    assert machine["gflops_float32"] > 0 and machine["processor"]
    assert result["examples"] == {"validation": len(examples), "test": len(examples)}
    assert [len(point) for point in result["curve"]] == [3, 3]
    assert 0 < result["curve"][0][0] < result["curve"][1][0] == result["training_seconds"]
    # The model, first vectors, training, calibration, export: more than the steps alone.
    assert result["saved_seconds"] > result["seconds_with_evaluation"] > result["training_seconds"]
    assert result["windows_per_second"] > 0 and result["peak_mib"] > 50
    assert 0 < result["coverage"]["coverage_at_10"] <= 1
    labels = {"validation", "test", "test_unfiltered", "test_id_view", "test_mm_view"}
    labels |= {"test_noise_0.5", "test_insert_0.5"}
    assert labels == set(ranks)
    for label in labels:
        assert ranks[label].shape == (len(examples), 1)
        ndcg, recall = ndcg_and_recall(ranks[label][:, 0], 10)
        assert result[label]["ndcg_at_10"] == pytest.approx(ndcg, abs=1e-6)
        assert result[label]["hit_rate_at_10"] == pytest.approx(recall, abs=1e-6)
    kinds = [result["slices"][f"{kind} targets"]["examples"] for kind in ("head", "middle", "tail")]
    never = result["slices"].get("targets never trained", {"examples": 0})
    assert sum(kinds) + never["examples"] == len(examples)
    by_length = [v["examples"] for name, v in result["slices"].items() if name.startswith("users")]
    assert sum(by_length) == len(examples)


@pytest.mark.slow
def test_noise_hurts_a_model_that_reads_histories(trained):
    result, ranks = trained["bivrec"]
    assert (ranks["test_noise_0.5"] != ranks["test"]).mean() > 0.2
    # Popularity reads nothing: noise only changes what counts as seen.
    by_counts = trained["popularity"][1]
    assert by_counts["test_unfiltered"].shape == by_counts["test_noise_0.5"].shape
    assert (by_counts["test_noise_0.5"] <= by_counts["test_unfiltered"]).all()


@pytest.mark.slow
def test_a_data_set_that_cannot_be_had_is_skipped(data_root, tmp_path):
    for arguments, reason in (
        (["--data", "nowhere", "--model", "popularity"], "does not exist"),
        (["--data", "bare", "--model", "bivrec"], "no item has content"),
    ):
        done = run(data_root, tmp_path, *arguments, "--json", str(tmp_path / "out.json"))
        assert done.returncode == 4
        assert "skipped" in done.stderr and reason in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "out.json").exists()


@pytest.mark.slow
def test_a_model_that_nothing_can_start_from_is_an_error_and_not_a_skip(
    data_root, folder, tmp_path
):
    (tmp_path / "variables").mkdir()
    arguments = ["--data", "walks", "--model", "bivrec", "--warm-start", str(tmp_path)]
    done = run(data_root, folder, *arguments, "--json", str(tmp_path / "out.json"))
    assert done.returncode == 1
    assert f"--warm-start {tmp_path}" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_what_is_known_of_content_moves_to_a_share_of_another_training(
    data_root, folder, trained, tmp_path
):
    source, out = folder / "source", tmp_path / "walks-bivrec-1.json"
    arguments = ["--data", "walks", "--model", "bivrec", "--json", str(out)]
    moved = {}
    # One step of nothing: the view ranks by what it started from. Popularity takes no part.
    for name, more in (("scratch", []), ("warm", ["--warm-start", str(source)])):
        changes = ("learning_rate=1e-12", "epochs=1", "calibrate_popularity=false")
        still = [part for change in changes for part in ("--set", f"training.{change}")]
        done = run(data_root, folder, *arguments, *still, "--share", "0.5", *more)
        assert done.returncode == 0, done.stderr
        moved[name] = json.loads(out.read_text())
    assert moved["warm"]["training_share"] == 0.5
    assert moved["warm"]["warm_start"] == "source" and moved["scratch"]["warm_start"] is None
    assert len(moved["warm"]["warm_start_fingerprint"]) == 16
    assert moved["warm"]["windows"] == moved["scratch"]["windows"]
    assert moved["warm"]["test_mm_view"] != moved["scratch"]["test_mm_view"]


def split_of(histories, targets, counts=(40, 30, 20, 6, 4)):
    """What `with_noise` and `slices` take, made by hand."""
    from benchmarks.prepared import Prepared

    catalogue = ItemCatalogue.build([f"i{n}" for n in range(len(counts))], counts)
    examples = [
        (n, np.array(history, np.int32), np.array(target, np.int32))
        for n, (history, target) in enumerate(zip(histories, targets, strict=True))
    ]
    return Prepared(catalogue, [], {"test": examples}, "")


def test_noise_is_a_share_of_random_items_and_never_a_target():
    histories = [[1, 2, 3, 4, 5] * 20] * 40
    prepared = split_of(histories, [[2, 4]] * 40)
    replaced = with_noise(prepared, 0.3, seed=0).held_out["test"]
    inserted = with_noise(prepared, 0.3, seed=0, insert=True).held_out["test"]
    assert [len(history) for _, history, _ in replaced] == [100] * 40
    changed = np.array([history for _, history, _ in replaced]) != np.array(histories)
    # A third of the random items are by chance what stood there; of targets, none are.
    assert changed.mean() == pytest.approx(0.3 * (2 / 5 + 3 / 5 * 2 / 3), abs=0.03)
    added = np.mean([len(history) - 100 for _, history, _ in inserted])
    assert added == pytest.approx(30, abs=3)
    for (_, before, target), (_, after, _) in zip(prepared.held_out["test"], inserted, strict=True):
        assert Counter(before) - Counter(after.tolist()) == Counter()
        extra = Counter(after.tolist()) - Counter(before.tolist())
        assert set(extra) <= {1, 3, 5} and not set(extra) & set(target.tolist())
    again = with_noise(prepared, 0.3, seed=0).held_out["test"]
    assert all((a[1] == b[1]).all() for a, b in zip(again, replaced, strict=True))


def test_slices_count_the_targets_of_their_kind_alone():
    # Of 100 interactions: item 1 has 40, item 2 reaches half, item 3 reaches 0.8.
    prepared = split_of([[1], [1] * 7], [[1, 4], [5, -1]])
    ranks = np.array([[3, 60], [1, np.iinfo(np.int32).max]])
    found = slices(prepared, ranks)
    assert found["head targets"]["recall_at_10"] == 1.0
    assert found["head targets"]["examples"] == 1
    assert "middle targets" not in found
    assert found["tail targets"] == {**found["tail targets"], "examples": 2, "recall_at_10": 0.5}
    assert found["targets with at most 5 in training"]["recall_at_10"] == 1.0
    assert found["targets never trained"]["recall_at_50"] == 0.0
    assert found["users with at most 5 interactions"]["recall_at_10"] == 0.5


def test_ranks_of_batches_with_other_numbers_of_targets_join():
    found = joined([np.array([[1]]), np.array([[2, 3]])])
    np.testing.assert_array_equal(found, [[1, 0], [2, 3]])


def test_settings_are_changed_by_name(tmp_path):
    file = tmp_path / "some.yaml"
    file.write_text("model: {dimension: 8}\n")
    changes = ("model.views=[id]", "training.loss.softmax=sampled")
    assert read_settings("nowhere", changes, file=file) == {
        "model": {"dimension": 8, "views": ["id"]},
        "training": {"loss": {"softmax": "sampled"}},
    }


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("dimension=3", "--set dimension=3: expected model.NAME=VALUE"),
        ("modle.scales=[1]", "--set modle.scales="),
        ("model.dimension", "--set model.dimension: expected"),
        ("model.dimension.x=3", "dimension has no settings below it"),
        ("model.dimesion=3", "model, key 'dimesion'"),
        ("training.loss.semantic_weight=much", "training, key 'loss.semantic_weight'"),
    ],
)
def test_a_change_that_changes_nothing_is_refused(tmp_path, change, told):
    file = tmp_path / "some.yaml"
    file.write_text("model: {dimension: 8}\n")
    with pytest.raises(click.UsageError) as raised:
        validated(read_settings("nowhere", (change,), file=file), seed=0)
    assert told in raised.value.message


def test_a_pipelines_other_settings_are_passed_over_but_for_its_protocol(tmp_path):
    file = tmp_path / "some.yaml"
    file.write_text(
        "name: shop\nmodel: {dropout: 0.5}\nserving: {model_name: shop}\n"
        "sequences: {protocol: user, max_history: 9}\n"
    )
    settings = read_settings("nowhere", file=file)
    assert settings == {"model": {"dropout": 0.5}, "protocol": "user"}


def test_what_a_model_has_of_its_own_goes_before_the_rest_of_its_data_set():
    shared, own = read_settings("ml-1m", (), "bivrec"), read_settings("ml-1m", (), "comirec_sa")
    assert shared["model"]["num_interests"] != own["model"]["num_interests"]
    assert own["model"] == {**shared["model"], "num_interests": 4, "readout": "target"}
    assert own["training"] == shared["training"]
    # A file is all there is, whatever its name.
    given = read_settings("ml-1m", (), "comirec_sa", ROOT / "configs" / "ml-1m.yaml")
    assert given == shared


@pytest.mark.parametrize("model", MODEL_NAMES)
@pytest.mark.parametrize(
    "file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda file: file.stem
)
def test_a_configuration_is_one_of_its_models(file, model):
    own = ROOT / "benchmarks" / "configs" / file.name
    if own.exists():
        assert set(yaml.safe_load(own.read_text())) <= set(MODEL_NAMES)
    settings = read_settings(file.stem, (), model)
    assert set(settings) == {"model", "training", "protocol"}
    # Seeds are given on the command line; one in a file would hide there.
    assert "seed" not in settings["training"]
    validated(settings, seed=0)
