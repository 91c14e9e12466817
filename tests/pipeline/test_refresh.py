"""`bivrec refresh` on a shop's pushed model: a real second pipeline, then real servers."""

import csv
import re
import shutil
from contextlib import contextmanager
from dataclasses import replace

import pytest
from ml_metadata import metadata_store
from tfx.orchestration import metadata

from components.model_refresher.refresh_model import SAME_CONTENT
from serving.client import RecommenderClient
from serving.process import ServerProcess

# What changes is an item without orders: its score is of its content, however views are weighed.
CHANGED, RETIRED, RETURNING = "2000", "1003", "2001"


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def refreshed(shop, bivrec, tmp_path_factory):
    """A copy of the shop after a refresh: one item changed, one gone, two new."""
    folder = tmp_path_factory.mktemp("refreshed")
    copy = replace(shop, folder=folder / "shop")
    shutil.copytree(shop.folder, copy.folder)
    items = [row for row in read_csv(copy.folder / "products.csv") if row["sku"] != RETIRED]
    for row in items:
        if row["sku"] == CHANGED:
            row["name"], row["description"] = "velvet cape", "A cape of velvet."
    items.append({"sku": "3000", "name": "red teapot", "description": "", "price": "4"})
    items.append({"sku": "3001", "name": "", "description": "", "price": "4"})
    table = write_csv(folder / "new_products.csv", items)
    finished = bivrec("refresh", "--output", copy.output, "--items", table)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return copy, finished.stdout, table


@contextmanager
def served(version_folder, tmp_path):
    base = tmp_path / version_folder.name
    shutil.copytree(version_folder, base / "1")
    with ServerProcess(base, poll_seconds=0) as server, RecommenderClient(server.target) as client:
        yield client


def test_what_was_done_is_counted(refreshed):
    _, printed, _ = refreshed
    rows = dict(re.findall(r"│ (.+?) +│ +([\d.,e+-]+) │", printed))
    assert rows["new"] == "2"
    assert rows["of them without any content"] == "1"
    assert rows["content changed"] == "1"
    assert rows["no longer listed, retired"] == "1"
    assert int(rows["scores of unchanged items compared"].replace(",", "")) > 1000
    assert float(rows["largest relative difference among them"]) <= SAME_CONTENT.score


def test_only_what_changed_was_encoded(refreshed):
    copy, _, _ = refreshed
    log = (copy.output / "run.log").read_text()
    encoded = re.findall(r"^  text_encoded +(\d+)$", log, re.MULTILINE)
    # The first run's count, then the refresh's: the velvet cape and the teapot.
    assert len(encoded) >= 2 and encoded[-1] == "2"


def test_served_answers_before_and_after(refreshed, shop, tmp_path):
    copy, _, _ = refreshed
    (old,) = shop.versions()
    new = max(copy.versions(), key=int)
    assert old in copy.versions() and int(new) > int(old)
    # The retired item counts in this history, as it did.
    history = ["1001", "1002", RETIRED, "1004"]
    with (
        served(copy.served / old, tmp_path) as before,
        served(copy.served / new, tmp_path) as after,
    ):
        old_items = {i.item_id: i.score for i in before.recommend(history, k=100).items}
        new_items = {i.item_id: i.score for i in after.recommend(history, k=100).items}
        by_itself = after.recommend(["3000"], k=100, filter_seen=False).items
        unlisted = after.recommend([RETIRED], k=3)
    assert set(new_items) == (set(old_items) | {"3000", "3001"}) - {RETIRED}
    for item_id in set(old_items) & set(new_items) - {CHANGED}:
        assert new_items[item_id] == pytest.approx(old_items[item_id], rel=1e-5, abs=1e-5)
    assert abs(new_items[CHANGED] - old_items[CHANGED]) > 1e-4
    assert "3000" in {item.item_id for item in by_itself}
    assert unlisted.unknown_items == 0


def test_the_pushed_version_leads_back_to_the_model_it_was_made_from(refreshed, shop):
    copy, _, _ = refreshed
    config = metadata.sqlite_metadata_connection_config(str(copy.output / "metadata.sqlite"))
    store = metadata_store.MetadataStore(config)
    pushed = max(store.get_artifacts_by_type("PushedModel"), key=lambda artifact: artifact.id)
    seen, todo, uris = set(), [pushed.id], set()
    while todo:
        for event in store.get_events_by_artifact_ids([todo.pop()]):
            if event.type != event.OUTPUT or event.execution_id in seen:
                continue
            seen.add(event.execution_id)
            inputs = store.get_events_by_execution_ids([event.execution_id])
            ids = [e.artifact_id for e in inputs if e.type == e.INPUT]
            uris |= {artifact.uri for artifact in store.get_artifacts_by_id(ids)}
            todo += ids
    (old,) = shop.versions()
    assert str(copy.served / old) in uris


def test_the_same_table_again_pushes_nothing_new_and_an_item_can_come_back(
    refreshed, shop, bivrec, tmp_path
):
    copy, _, table = refreshed
    before = copy.versions()
    again = bivrec("refresh", "--output", copy.output, "--items", table)
    assert again.returncode == 0, again.stdout + again.stderr
    assert copy.versions() == before
    original = bivrec("refresh", "--output", copy.output, "--items", copy.folder / "products.csv")
    assert original.returncode == 0, original.stdout + original.stderr
    assert re.search(r"listed again +│ +1 │", original.stdout)
    with served(copy.served / max(copy.versions(), key=int), tmp_path) as client:
        items = {item.item_id for item in client.recommend(["1001"], k=100).items}
    assert RETIRED in items and "3000" not in items


def test_half_a_table_without_texts_is_told_in_words(refreshed, bivrec, tmp_path):
    copy, _, table = refreshed
    bare = [row | {"name": "", "description": ""} for row in read_csv(table)[:20]]
    finished = bivrec(
        "refresh", "--output", copy.output, "--items", write_csv(tmp_path / "bare.csv", bare)
    )
    # And half a table is not pushed unless that is allowed.
    assert finished.returncode == 3
    assert re.search(r"retires \d+ of \d+ listed items.*--max-retired 1", finished.stdout)
    assert "Content changed: text: no item has it any more" in finished.stdout
    assert "Was a column renamed?" in finished.stdout
    assert re.search(r"Content changed: the item table has 20 items, it had \d+\.", finished.stdout)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("column", "there is no column 'name'"),
        ("encoder", "was trained with vectors of encoder 'all-minilm-l6-v2'"),
        ("nothing run", "nothing was run in"),
    ],
)
def test_what_cannot_be_refreshed_is_said(case, message, refreshed, bivrec, tmp_path):
    copy, _, table = refreshed
    before = copy.versions()
    arguments = ["refresh", "--output", copy.output, "--items", table]
    if case == "column":
        rows = [{"sku": row["sku"], "title": row["name"]} for row in read_csv(table)]
        arguments[-1] = write_csv(tmp_path / "other.csv", rows)
    if case == "encoder":
        config = (copy.folder / "shop.yaml").read_text()
        other = copy.folder / "other.yaml"
        other.write_text(config.replace("encoder: minilm", "encoder: minilm-bfloat16"))
        arguments += ["--config", other]
    if case == "nothing run":
        arguments[2] = tmp_path
    finished = bivrec(*arguments)
    assert finished.returncode == 2, finished.stdout + finished.stderr
    assert message in finished.stderr
    assert copy.versions() == before
