"""RecTools' SASRec on a split of `exchange.py`; runs in an environment with `rectools[torch]`."""

import argparse
import json
import resource
import time
from pathlib import Path

import pandas as pd
import torch
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel


def dataset(file: Path) -> Dataset:
    """Reads a table as RecTools wants it, positions as days."""
    table = pd.read_csv(file)
    frame = pd.DataFrame(
        {
            Columns.User: table["user"],
            Columns.Item: table["item"],
            Columns.Weight: 1.0,
            Columns.Datetime: pd.Timestamp("2000-01-01")
            + pd.to_timedelta(table["position"], unit="s"),
        }
    )
    return Dataset.construct(frame)


def main() -> None:
    """Trains, recommends, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=0.001)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    facts = json.loads((options.folder / "split.json").read_text())
    model = SASRecModel(
        n_factors=options.dimension,
        n_blocks=options.blocks,
        n_heads=options.heads,
        dropout_rate=options.dropout,
        session_max_len=facts["max_history"],
        batch_size=options.batch,
        epochs=options.epochs,
        lr=options.learning_rate,
        loss="softmax",
        verbose=1,
        deterministic=True,
    )
    began = time.perf_counter()
    model.fit(dataset(options.folder / "train.csv"))
    spent = time.perf_counter() - began
    histories = dataset(options.folder / "test.csv")
    users = histories.user_id_map.external_ids
    began = time.perf_counter()
    found = model.recommend(users=users, dataset=histories, k=50, filter_viewed=True)
    recommending = time.perf_counter() - began
    found = found.rename(columns={Columns.User: "user", Columns.Item: "item", Columns.Rank: "rank"})
    found[["user", "item", "rank"]].to_csv(options.folder / "recommended.csv", index=False)
    run = {
        "model": "rectools_sasrec",
        "seed": options.seed,
        "configuration": {key: str(value) for key, value in vars(options).items()},
        "training_seconds": spent,
        "seconds_to_recommend": recommending,
        "parameters": sum(p.numel() for p in model.torch_model.parameters()),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "curve": [],
    }
    (options.folder / "run.json").write_text(json.dumps(run))


if __name__ == "__main__":
    main()
