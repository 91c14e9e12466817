"""RecTools' SASRec on a split of `exchange.py`; runs in an environment with `rectools[torch]`."""

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel


def dataset(file: Path) -> Dataset:
    """Reads a table as RecTools wants it, positions as seconds."""
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


class Curve(Callback):
    """Recommends to validation histories every few epochs; the time that takes does not count."""

    def __init__(self, every: int, recommend: Callable[[int], None]) -> None:
        self.every = every
        self.recommend = recommend
        self.seconds: list[float] = []
        self.recommending = 0.0
        self.points: list[tuple[int, float]] = []

    def __deepcopy__(self, memo) -> "Curve":
        # RecTools trains with a copy of its trainer; what that one notes is wanted here.
        return self

    def on_train_epoch_start(self, trainer, module) -> None:
        """Starts the clock."""
        self.began = time.perf_counter()

    def on_train_epoch_end(self, trainer, module) -> None:
        """Stops it, and recommends when it is time to."""
        self.seconds.append(time.perf_counter() - self.began)
        epoch = len(self.seconds)
        print(f"epoch {epoch}: {sum(self.seconds):.0f} s", flush=True)
        if epoch % self.every == 0 or epoch == trainer.max_epochs:
            began = time.perf_counter()
            self.recommend(epoch)
            self.recommending += time.perf_counter() - began
            self.points.append((epoch, sum(self.seconds)))
            module.train()


def main() -> None:
    """Trains, recommends, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--history", type=int, help="items; without it the split's")
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=0.001)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--validate-every", type=int, default=3, help="epochs")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    facts = json.loads((options.folder / "split.json").read_text())
    known, histories = (dataset(options.folder / f"{name}.csv") for name in ("train", "test"))
    data_ready = time.perf_counter()

    def recommend(to: Dataset, name: str) -> None:
        model.is_fitted = True
        users = to.user_id_map.external_ids
        found = model.recommend(users=users, dataset=to, k=50, filter_viewed=True)
        names = {Columns.User: "user", Columns.Item: "item", Columns.Rank: "rank"}
        found = found.rename(columns=names)[list(names.values())]
        found.to_csv(options.folder / f"{name}.csv", index=False)

    curve = Curve(options.validate_every, lambda epoch: recommend(known, f"validation-{epoch}"))

    def trainer() -> Trainer:
        return Trainer(
            max_epochs=options.epochs,
            min_epochs=options.epochs,
            deterministic=True,
            enable_progress_bar=False,
            enable_checkpointing=False,
            logger=False,
            devices=1,
            accelerator="cpu",
            callbacks=[curve],
        )

    model = SASRecModel(
        n_factors=options.dimension,
        n_blocks=options.blocks,
        n_heads=options.heads,
        dropout_rate=options.dropout,
        session_max_len=options.history or facts["max_history"],
        batch_size=options.batch,
        lr=options.learning_rate,
        loss="softmax",
        get_trainer_func=trainer,
    )
    model.fit(known)
    torch.save(model.torch_model.state_dict(), options.folder / "weights.pt")
    saved_seconds = time.perf_counter() - data_ready - curve.recommending
    began = time.perf_counter()
    recommend(histories, "recommended")
    run = {
        "model": "rectools_sasrec",
        "seed": options.seed,
        "configuration": {
            "model": {},
            "training": {k: v for k, v in vars(options).items() if k != "folder"},
        },
        "training_seconds": sum(curve.seconds),
        "saved_seconds": saved_seconds,
        "seconds_to_recommend": time.perf_counter() - began,
        "parameters": sum(p.numel() for p in model.torch_model.parameters()),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "points": curve.points,
    }
    (options.folder / "run.json").write_text(json.dumps(run))


if __name__ == "__main__":
    main()
