"""The data that ships with the project is well-formed."""

from pathlib import Path

import numpy as np
import pandas as pd

SAMPLE = Path(__file__).parents[1] / "data" / "ml-latest-small"


def test_the_image_features_belong_to_movies_of_the_sample():
    vectors = np.load(SAMPLE / "image_features.npy", allow_pickle=False)
    rows = pd.read_csv(SAMPLE / "image_features_ids.csv", dtype={"item_id": str})
    items = pd.read_parquet(SAMPLE / "items.parquet")["item_id"]
    assert list(rows.columns) == ["item_id", "row"]
    assert rows["item_id"].is_unique
    assert rows["item_id"].isin(items).all()
    assert sorted(rows["row"]) == list(range(len(vectors)))
    assert np.isfinite(vectors).all()
    # No movie without a vector of its own.
    assert len(np.unique(vectors, axis=0)) > 0.99 * len(vectors)


def test_the_image_features_stay_small():
    files = list(SAMPLE.glob("image_features*"))
    assert len(files) == 2
    assert sum(file.stat().st_size for file in files) < 1_000_000


def test_posters_of_sequels_are_neighbours():
    """Rows and ids fit together: a shifted row would show here."""
    vectors = np.load(SAMPLE / "image_features.npy", allow_pickle=False).astype(np.float64)
    rows = pd.read_csv(SAMPLE / "image_features_ids.csv", dtype={"item_id": str})
    row_of = dict(zip(rows["item_id"], rows["row"], strict=True))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    titles = pd.read_parquet(SAMPLE / "items.parquet").set_index("item_id")["title"]
    series = titles[titles.index.isin(row_of)].str.extract(r"^(.{6,}?)(?: \d| I+|:.*)? \(\d{4}\)$")
    groups = series.reset_index().groupby(0)["item_id"].apply(list)
    pairs = [ids[:2] for ids in groups if len(ids) > 1]
    assert len(pairs) > 40
    alike = np.mean([vectors[row_of[a]] @ vectors[row_of[b]] for a, b in pairs])
    assert alike > np.mean(vectors @ vectors.T) + 0.08
