"""A shop's own CSV tables, taken through the whole pipeline once by the real command."""

import csv
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

FIRST_TIME = 1_700_000_000
CONFIG = """\
name: corner-shop
interactions:
  path: orders.csv
  columns: {user_id: customer, item_id: sku, timestamp: ordered_at}
items:
  path: products.csv
  columns: {item_id: sku}
  title: name
modalities:
  - {name: text, kind: text, columns: [name, description], encoder: minilm}
model: {max_history: 8, dimension: 16, num_interests: 2, scales: [1, 2]}
training:
  epochs: 12
  batch_size: 16
  learning_rate: 0.01
serving: {validation_requests: 20}
"""
COLOURS = ("red", "blue", "green", "black")
KINDS = ("tea", "mug", "pot", "tin", "spoon", "tray", "jar", "box", "lid", "sieve")


@dataclass(frozen=True)
class Shop:
    """The tables, the configuration, and where runs go."""

    folder: Path
    new_products: int = 2
    missing_texts: int = 3
    duplicate_rows: int = 7
    unlisted_products: int = 1

    @property
    def config(self) -> Path:
        return self.folder / "shop.yaml"

    @property
    def output(self) -> Path:
        return self.folder / "output"

    @property
    def temporary(self) -> Path:
        return self.folder / "temporary"

    @property
    def served(self) -> Path:
        return self.output / "serving" / "recommender"

    def versions(self) -> list[str]:
        return sorted(path.name for path in self.served.glob("*")) if self.served.exists() else []


def run_bivrec(
    *arguments: object, timeout: int = 560, **variables: object
) -> subprocess.CompletedProcess:
    """Runs the command as a user does, in a process of its own, with variables of its own."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=Path(__file__).parents[2],
        env={**os.environ, **{name: str(value) for name, value in variables.items()}},
    )


def write_csv(path: Path, rows: list[dict]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_shop(folder: Path) -> Shop:
    """Customers walk through the products in order: what comes next is there to be learned."""
    rng = random.Random(0)
    shop = Shop(folder)
    products = [f"{colour} {kind}" for kind in KINDS for colour in COLOURS]
    orders = []
    for customer in range(1, 121):
        start, time = rng.randrange(len(products)), FIRST_TIME + rng.randrange(3_000_000)
        for step in range(rng.randint(8, 14)):
            sku = 1000 + (start + step) % len(products)
            orders.append({"customer": customer, "sku": sku, "ordered_at": time, "shop": "main"})
            time += rng.randrange(1, 40_000)
    orders += orders[: shop.duplicate_rows]
    rng.shuffle(orders)
    write_csv(folder / "orders.csv", orders)
    items = [
        {"sku": 1000 + row, "name": name, "description": f"A {name} for every day.", "price": 3}
        for row, name in enumerate(products)
    ]
    for item in items[: shop.missing_texts]:
        item.update(name="", description="")
    items += [
        {"sku": 2000 + n, "name": f"new {kind}", "description": "", "price": 5}
        for n, kind in enumerate(KINDS[: shop.new_products])
    ]
    items.append(dict(items[5]))
    # A product that was sold and that the catalogue does not list.
    del items[len(products) - 1]
    write_csv(folder / "products.csv", items)
    shop.config.write_text(CONFIG)
    return shop


@pytest.fixture(scope="session")
def bivrec():
    """The command, run in a process of its own."""
    return run_bivrec


@pytest.fixture(scope="session")
def new_shop():
    """Writes a shop's tables and configuration into a folder."""
    return write_shop


@pytest.fixture(scope="session")
def shop(tmp_path_factory) -> Shop:
    """The shop after one run of the pipeline, which pushed a model."""
    shop = write_shop(tmp_path_factory.mktemp("shop"))
    shop.temporary.mkdir()
    finished = run_bivrec(
        *("run", "--config", shop.config, "--output", shop.output), TMPDIR=shop.temporary
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return shop
