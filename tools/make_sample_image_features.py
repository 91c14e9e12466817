"""Makes the image features that ship with the sample from the posters of MovieLens 1M.

    .venv/bin/python tools/make_sample_image_features.py --ml-1m ../shared/data/ml-1m

Neither the posters nor anything that shows them leaves their folder: what is written are the
leading principal components of the vectors of an image encoder.
"""

from pathlib import Path

import click
import numpy as np
import pandas as pd

import bivrec_tf  # noqa: F401 - selects Keras 2
from bivrec_tf.encoders import load_encoder

SAMPLE = Path(__file__).parents[1] / "data" / "ml-latest-small"
_BATCH = 512


def principal_components(vectors: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """Returns the leading principal components of each row, and the share of variance they keep.

    The same vectors give the same components: each direction's sign is that of its largest weight.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    values, directions = np.linalg.eigh(centred.T @ centred)
    values, directions = values[::-1], directions[:, ::-1][:, :count]
    largest = directions[np.abs(directions).argmax(axis=0), np.arange(count)]
    return centred @ (directions * np.sign(largest)), float(values[:count].sum() / values.sum())


@click.command()
@click.option(
    "--ml-1m",
    "movies",
    default=Path("../shared/data/ml-1m"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder with images/<item_id>.jpg.",
)
@click.option("--dimension", default=128, show_default=True, help="Components kept.")
@click.option("--output", default=SAMPLE, show_default=True, type=click.Path(path_type=Path))
def main(movies: Path, dimension: int, output: Path) -> None:
    """Write image_features.npy and image_features_ids.csv."""
    if not (movies / "images").is_dir():
        raise click.ClickException(f"no posters in {movies / 'images'}; name them with --ml-1m DIR")
    ids = pd.read_parquet(SAMPLE / "items.parquet", columns=["item_id"])["item_id"]
    posters = {item_id: movies / "images" / f"{item_id}.jpg" for item_id in ids}
    kept = [item_id for item_id, poster in posters.items() if poster.is_file()]
    encoder = load_encoder("efficientnet-lite0")
    vectors = np.concatenate(
        [
            encoder.encode([posters[item_id].read_bytes() for item_id in kept[at : at + _BATCH]])
            for at in range(0, len(kept), _BATCH)
        ]
    )
    readable = np.isfinite(vectors).all(axis=1)
    kept = [item_id for item_id, sound in zip(kept, readable, strict=True) if sound]
    components, share = principal_components(vectors[readable], dimension)
    np.save(output / "image_features.npy", components.astype(np.float16))
    rows = pd.DataFrame({"item_id": kept, "row": np.arange(len(kept))})
    rows.to_csv(output / "image_features_ids.csv", index=False)
    click.echo(
        f"{len(kept)} of {len(ids)} movies, {(~readable).sum()} unreadable posters, "
        f"{dimension} components with {share:.1%} of the variance"
    )


if __name__ == "__main__":
    main()
