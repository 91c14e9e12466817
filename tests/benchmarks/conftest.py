"""A small data set with a rule in it, as the benchmarks read one."""

import numpy as np
import pandas as pd
import pytest

ITEMS = 30


def walks(users=60, seed=0):
    """Interactions of users who walk through the items in order, now and then elsewhere.

    With rows in no order, equal times, repeated and duplicate rows, and items that few have.
    """
    random = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        item, time = int(random.integers(ITEMS)), int(random.integers(1_000_000))
        for _ in range(int(random.integers(3, 25))):
            rows.append((f"u{user:02d}", f"i{item:02d}", 1_500_000_000 + time))
            item = int(random.integers(ITEMS)) if random.random() < 0.2 else (item + 1) % ITEMS
            time += int(random.integers(0, 3)) * 40_000
        if random.random() < 0.3:
            rows.append((f"u{user:02d}", f"rare {random.integers(8)}", 1_500_000_000 + time))
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    frame = pd.concat([frame, frame.sample(20, random_state=seed)], ignore_index=True)
    frame = frame.sample(frac=1, random_state=seed, ignore_index=True)
    names = ["train", "valid", "test"]
    splits = {user: names[n % 3] for n, user in enumerate(sorted(frame["user_id"].unique()))}
    return frame.assign(split=frame["user_id"].map(splits))


@pytest.fixture(scope="session")
def data_root(tmp_path_factory):
    """A folder of data sets: `walks`, with titles, and `bare`, without content or splits."""
    root = tmp_path_factory.mktemp("data")
    frame = walks()
    names = sorted({*frame["item_id"], "i-new"})
    titles = [f"{'red' if number % 2 else 'blue'} thing" for number in range(len(names))]
    tables = {
        "walks": (frame, pd.DataFrame({"item_id": names, "title": titles})),
        "bare": (frame.drop(columns="split"), pd.DataFrame({"item_id": names})),
    }
    for name, (interactions, items) in tables.items():
        (root / name).mkdir()
        interactions.to_parquet(root / name / "interactions.parquet")
        items.to_parquet(root / name / "items.parquet")
    return root
