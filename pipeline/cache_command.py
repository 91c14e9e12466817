"""`bivrec cache`: what is kept of encoded content, and making it smaller."""

import datetime
from pathlib import Path

import click

from pipeline.quiet import quiet_imports

_OUTPUT = click.option(
    "--output",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder of `bivrec run`.",
)
_MIB = 1 << 20


@click.group()
def cache() -> None:
    """Show, prune or clear the cache of encoded content.

    `bivrec run` keeps the vector of every text and picture that an encoder made under
    OUTPUT/content_cache, by what the content was and by the encoder's fingerprint: what did not
    change is never encoded again, across runs and after a run that was killed. After each run the
    least recently used vectors go, until `content_cache_gib` of the configuration is met.

    \b
    Examples:
      bivrec cache show --output output
      bivrec cache prune --output output --max-gib 2
      bivrec cache clear --output output

    Nothing here can break a model or a run: what is removed is encoded again when it is needed.
    Exit codes: 0 done; 2 something you can put right, said in a sentence.
    """  # noqa: D301 - click wants the character itself


@cache.command()
@_OUTPUT
def show(output: Path) -> None:
    """List what is cached, a line for each encoder.

    An encoder stands there twice when its code or weights changed: the vectors of the old
    fingerprint are not used any more, and go first when the cache is full.
    """
    from rich.console import Console
    from rich.table import Table

    with quiet_imports():
        from components.content_encoder.cache_maintenance import cached_encoders

    encoders = cached_encoders(_directory(output))
    console = Console(highlight=False, markup=False)
    if not encoders:
        console.print("Nothing is cached.")
        return
    table = Table("encoder", "fingerprint", box=None)
    for heading in ("vectors", "MiB", "last used"):
        table.add_column(heading, justify="right")
    for encoder in encoders:
        moment = datetime.datetime.fromtimestamp(encoder.last_used)
        table.add_row(
            encoder.name,
            encoder.fingerprint,
            f"{encoder.vectors:,}",
            _mib(encoder.size),
            f"{moment:%Y-%m-%d %H:%M}",
        )
    console.print(table)


@cache.command()
@_OUTPUT
@click.option(
    "--max-gib",
    required=True,
    type=click.FloatRange(min=0),
    help="What the cache may hold afterwards, in GiB.",
)
def prune(output: Path, max_gib: float) -> None:
    """Remove the least recently used vectors until the cache is not above a size.

    Vectors are removed by file (a part of what one run encoded), so somewhat more may go.
    """
    with quiet_imports():
        from components.content_encoder import cache_maintenance

    removed = cache_maintenance.prune(_directory(output), max_gib * cache_maintenance.GIB)
    click.echo(f"Removed {removed.vectors:,} vectors, {_mib(removed.size)} MiB")


@cache.command()
@_OUTPUT
def clear(output: Path) -> None:
    """Remove all cached vectors, of all encoders."""
    with quiet_imports():
        from components.content_encoder import cache_maintenance

    removed = cache_maintenance.clear(_directory(output))
    click.echo(f"Removed {removed.vectors:,} vectors, {_mib(removed.size)} MiB")


def _directory(output: Path) -> str:
    return str(output.absolute() / "content_cache")


def _mib(size: int) -> str:
    return f"{size / _MIB:,.1f}"
