"""Pictures inside the item table, through the standard components and the real image encoder."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image
from rich.console import Console
from tfx.types import standard_artifacts
from tfx.types.channel import Channel

from components.item_features import read_item_features
from pipeline.config import load_config
from pipeline.dag import encode_content, read_items, validated
from pipeline.local_runner import Output, run_components
from pipeline.results import latest_outputs


def picture(seed, mode="RGB", form="JPEG"):
    colours = np.random.default_rng(seed).integers(0, 255, size=(4, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(colours).resize((160, 120)).convert(mode).save(file, form)
    return file.getvalue()


def test_bytes_of_pictures_pass_statistics_schema_and_encoder(tmp_path):
    pictures = [picture(n) for n in range(30)]
    pictures[1], pictures[2] = picture(1, "CMYK"), picture(2, "RGBA", "PNG")
    pictures[3], pictures[4] = None, pictures[5]
    pictures[6] = pictures[6][:200]
    table = pa.table(
        {
            "item_id": [f"p{n}" for n in range(30)],
            "name": [f"picture {n}" for n in range(30)],
            "cover": pa.array(pictures, pa.binary()),
        }
    )
    pq.write_table(table, tmp_path / "items.parquet")
    settings = {
        "name": "covers",
        "interactions": {"path": "log.csv"},
        "items": {"path": "items.parquet", "title": "name"},
        "modalities": [{"name": "cover", "kind": "image", "column": "cover"}],
    }
    (tmp_path / "covers.yaml").write_text(yaml.safe_dump(settings))
    config, output = load_config(tmp_path / "covers.yaml"), Output(tmp_path / "output")
    output.directory.mkdir()

    def nodes(_):
        items = read_items(config)
        no_model = Channel(type=standard_artifacts.Model)
        encoder, _ = encode_content(config, output.paths(config), items, no_model)
        return [items, *validated(items, "Item"), encoder]

    run_components(output, config, Console(quiet=True), nodes)
    features = latest_outputs(output.metadata)[("ContentEncoder", "item_features")]
    folder = tmp_path / "output"
    files = [str(path) for path in folder.glob("pipeline/ContentEncoder/**/items-*.gz")]
    assert features.uri in files[0]
    vectors = {item.item_id: item.features.get("cover") for item in read_item_features(files)}
    assert len(vectors) == 30
    missing = {name for name, vector in vectors.items() if vector is None}
    # One has no picture, one is cut off: it is counted, and said with its item.
    assert missing == {"p3", "p6"}
    assert all(
        v.shape == (1280,) and np.isfinite(v).all() for v in vectors.values() if v is not None
    )
    np.testing.assert_array_equal(vectors["p4"], vectors["p5"])
    log = output.log.read_text()
    assert "cover_unreadable" in log and "p6" in log
