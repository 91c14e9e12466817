"""Pictures by path, by URI and as bytes; those that change, go missing, or cannot be read."""

import os

import numpy as np
import pytest

from bivrec_tf.errors import ConfigError, DataError
from components.content_encoder import pictures
from components.content_encoder.content_config import ContentConfig

ABBA, CAB = b"\0abba", b"\0cab"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "shop"
    (folder / "posters").mkdir(parents=True)
    return folder


def config_of(folder, **changes):
    modality = {"name": "image", "kind": "image", "column": "poster", "max_unreadable": 1.0}
    modality |= {"encoder": "user_encoders:PictureEncoder"} | changes
    return ContentConfig(modalities=[modality], picture_folder=str(folder))


def item(item_id, *poster, row=0):
    return {"item_id": [item_id], "poster": list(poster), "row": [row]}


def test_a_cell_may_be_a_path_a_uri_or_the_picture(encode, folder, tmp_path):
    (folder / "posters" / "1.pic").write_bytes(ABBA)
    (tmp_path / "elsewhere.pic").write_bytes(CAB)
    elsewhere = str(tmp_path / "elsewhere.pic").encode()
    items = [
        item(b"relative", b"posters/1.pic"),
        item(b"absolute", elsewhere),
        item(b"uri", b"file://" + elsewhere),
        item(b"bytes", ABBA),
        item(b"long", b"\0" + b"e" * 9_000),
        item(b"empty"),
    ]
    rows, counts, modalities = encode(items, config_of(folder))
    assert {key: row["image"] for key, row in rows.items()} == {
        b"relative": [2, 2, 0, 0, 0],
        b"absolute": [1, 1, 1, 0, 0],
        b"uri": [1, 1, 1, 0, 0],
        b"bytes": [2, 2, 0, 0, 0],
        b"long": [0, 0, 0, 0, 9_000],
        b"empty": [0, 0, 0, 0, 0],
    }
    assert [key for key, row in rows.items() if row["image_present"] == [0]] == [b"empty"]
    # The same picture by another way is the same content.
    assert (counts["image_encoded"], counts["image_shared"], counts["image_present"]) == (3, 2, 5)
    assert (counts["image_missing"], counts["image_unreadable"]) == (1, 0)
    assert modalities["image"] == {
        "dimension": 5,
        "kind": "image",
        "encoder": "pictures",
        "fingerprint": "pictures-1",
    }


def test_unreadable_pictures_are_counted_told_and_missing(encode, folder, caplog, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PICTURE_BYTES", 1 << 20)
    (folder / "good.pic").write_bytes(ABBA)
    (folder / "torn.pic").write_bytes(b"abba")
    (folder / "none.pic").write_bytes(b"")
    (folder / "huge.pic").write_bytes(b"\0" * ((1 << 20) + 1))
    (folder / "posters.pic").mkdir()
    names = {b"1": "good", b"2": "torn", b"3": "none", b"4": "huge", b"5": "posters", b"6": "gone"}
    items = [item(key, f"{name}.pic".encode()) for key, name in names.items()]
    rows, counts, _ = encode([*items, item(b"7")], config_of(folder))
    assert [key for key in sorted(rows) if rows[key]["image_present"] == [1]] == [b"1"]
    assert np.any(rows[b"1"]["image"]) and not np.any(rows[b"2"]["image"])
    assert (counts["image_unreadable"], counts["image_missing"]) == (5, 6)
    assert "5 of 6 pictures of 'image' cannot be read" in caplog.text
    for item_id, name, reason in (
        (2, "torn", "it does not begin with NUL"),
        (3, "none", "the file is empty"),
        (4, "huge", "more than 1 MiB"),
        (5, "posters", "Is a directory"),
        (6, "gone", "No such file"),
    ):
        assert f"item '{item_id}', {folder}/{name}.pic: " in caplog.text
        assert reason in caplog.text


def test_a_pipe_keeps_nobody_waiting(encode, folder, caplog):
    os.mkfifo(folder / "pipe.pic")
    (folder / "good.pic").write_bytes(ABBA)
    items = [item(b"1", b"good.pic"), item(b"2", b"pipe.pic")]
    rows, counts, _ = encode(items, config_of(folder, max_unreadable=0.5))
    assert (counts["image_unreadable"], rows[b"1"]["image_present"]) == (1, [1])
    assert "pipe.pic: it is not a regular file" in caplog.text


@pytest.mark.parametrize(("limit", "fails"), [(0.24, True), (0.25, False)])
def test_too_many_unreadable_pictures_end_the_run(encode, folder, limit, fails):
    (folder / "good.pic").write_bytes(ABBA)
    items = [item(b"%d" % n, b"good.pic") for n in range(3)]
    # Empty cells are no pictures: they do not thin out the share.
    items += [item(b"gone", b"posters/gone.pic"), item(b"4"), item(b"5")]
    if not fails:
        assert encode(items, config_of(folder, max_unreadable=limit)).counts["image_present"] == 3
        return
    with pytest.raises(DataError) as error:
        encode(items, config_of(folder, max_unreadable=limit))
    for part in ("column 'poster'", "1 of 4", "0.24", "item 'gone'", "posters/gone.pic", "No such"):
        assert part in str(error.value)


def test_paths_that_leave_the_folder_are_refused(encode, folder, tmp_path):
    (tmp_path / "secret.pic").write_bytes(ABBA)
    (folder / "posters" / "link.pic").symlink_to(tmp_path / "secret.pic")
    (folder / "outside").symlink_to(tmp_path)
    (folder / "good.pic").write_bytes(ABBA)
    (folder / "posters" / "inside.pic").symlink_to(folder / "good.pic")
    assert encode([item(b"1", b"posters/inside.pic")], config_of(folder)).counts["image_present"]
    for path in (b"posters/link.pic", b"outside/secret.pic", b"posters/../../secret.pic"):
        with pytest.raises(DataError, match="row 17, item '1', column 'poster': .*out of the"):
            encode([item(b"1", path, row=17)], config_of(folder))


def test_only_the_picture_that_changed_behind_its_path_is_encoded(encode, folder):
    items = [item(b"%d" % n, b"%d.pic" % n) for n in range(4)]
    for n in range(3):
        (folder / f"{n}.pic").write_bytes(b"\0" + b"a" * n)
    first, counts, _ = encode(items, config_of(folder))
    assert (counts["image_encoded"], counts["image_unreadable"]) == (3, 1)
    (folder / "0.pic").write_bytes(CAB)  # Changed,
    (folder / "1.pic").unlink()  # gone,
    (folder / "3.pic").write_bytes(ABBA)  # and come.
    second, counts, _ = encode(items, config_of(folder))
    assert (counts["image_encoded"], counts["image_cache_hits"]) == (2, 1)
    assert second[b"0"]["image"] == [1, 1, 1, 0, 0]
    assert second[b"1"] == {"image": [0] * 5, "image_present": [0]}
    assert second[b"2"] == first[b"2"]
    assert second[b"3"]["image_present"] == [1]


def test_an_encoder_of_another_content_is_refused(encode, folder):
    with pytest.raises(ConfigError, match="'image' is of kind image, but .* takes texts"):
        encode([item(b"1", ABBA)], config_of(folder, encoder="user_encoders:LetterEncoder"))


def test_many_pictures_in_the_table_stay_apart(encode, folder):
    """Pictures wait in a file between two steps: each item must get its own again."""
    items = [item(b"%d" % n, b"\0" + b"a" * n + b"b" * (n % 7)) for n in range(300)]
    rows = encode(items, config_of(folder)).rows
    expected = {b"%d" % n: [n, n % 7, 0, 0, 0] for n in range(300)}
    assert {key: row["image"] for key, row in rows.items()} == expected
