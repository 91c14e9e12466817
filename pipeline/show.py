"""Tables for people: recommendations, and what a run decided."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from serving.client import Recommendations

if TYPE_CHECKING:  # What reads results is heavy, and showing recommendations needs none of it.
    from pipeline.results import RefreshResult

_HISTORY_SHOWN = 5


def show_recommendations(
    console: Console,
    heading: str,
    history: Sequence[str],
    answer: Recommendations,
    titles: Mapping[str, str],
) -> None:
    """Prints recommendations with the interest and the history items behind each.

    Args:
      console: Where to.
      heading: Whom they are for.
      history: Item ids, oldest first.
      answer: What the server said.
      titles: What items are called; ids stand for items without a title.
    """

    def name(item_id: str) -> str:
        return titles.get(item_id, item_id)

    recent = [name(item) for item in history[-_HISTORY_SHOWN:]]
    more = f"{len(history) - len(recent)} earlier, then " if len(history) > len(recent) else ""
    table = Table(title=heading, caption=f"History: {more}{'; '.join(recent) or 'nothing'}")
    table.caption_justify = "left"
    table.add_column("#", justify="right")
    table.add_column("Recommended")
    table.add_column("Score", justify="right")
    table.add_column("Interest", justify="right")
    table.add_column("Because of")
    for place, item in enumerate(answer.items, start=1):
        interest = "popular" if item.interest < 0 else str(item.interest)
        reasons = "; ".join(name(reason) for reason in item.because)
        table.add_row(str(place), name(item.item_id), f"{item.score:.2f}", interest, reasons)
    console.print(table)
    if answer.unknown_items:
        console.print(f"  {answer.unknown_items} items of the history are not known to the model.")


def show_refresh(console: Console, result: "RefreshResult") -> None:
    """Prints what a refresh did and found."""
    report = result.report
    table = Table(title="Refreshed without training", show_header=False)
    table.add_column("What")
    table.add_column("Number", justify="right")
    for name, label in (
        ("items", "items that can be recommended"),
        ("new", "new"),
        ("new_without_content", "of them without any content"),
        ("changed", "content changed"),
        ("reencoded", "same content, encoded again"),
        ("returned", "listed again"),
        ("retired", "no longer listed, retired"),
        ("vectors_compared", "vectors of unchanged items compared"),
        ("scores_compared", "scores of unchanged items compared"),
    ):
        table.add_row(label, f"{report[name]:,}")
    table.add_row("largest relative difference among them", f"{report['largest_difference']:.1e}")
    if report["median_rank_of_new"] is not None:
        rank = f"{report['median_rank_of_new']:.0f}"
        table.add_row("median rank of a new item after itself", rank)
    console.print(table)
    for finding in result.drift:
        console.print(f"Content changed: {finding}", soft_wrap=True)
    for problem in report["problems"]:
        console.print(f"Not to be served: {problem}", soft_wrap=True)
    for difference in result.serving_verdict.get("differences", ()):
        console.print(f"Served and offline answers differ: {difference}", soft_wrap=True)


def show_metrics(
    console: Console,
    metrics: Mapping[tuple, Mapping[str, float]],
    columns: Sequence[str],
) -> None:
    """Prints metrics by slice.

    Args:
      console: Where to.
      metrics: Slice (pairs of feature and value; `()` is all) -> metric -> value.
      columns: Metrics to show.
    """
    table = Table(title="Test split, full ranking, seen items filtered")
    table.add_column("Slice")
    for column in columns:
        table.add_column(column, justify="right")
    for slice_key in sorted(metrics, key=lambda key: [str(part) for part in key]):
        label = ", ".join(f"{feature} {value}" for feature, value in slice_key) or "all"
        values = metrics[slice_key]
        table.add_row(label, *(f"{values[c]:.4f}" if c in values else "" for c in columns))
    console.print(table)
