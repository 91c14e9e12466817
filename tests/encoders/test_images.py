"""Decoding of image files of every kind, against arrays they were made from and TensorFlow."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import sklearn
import tensorflow as tf
from PIL import Image

from bivrec_tf.encoders.images import UnreadableImage, read_image

FLOWER = (Path(sklearn.__file__).parent / "datasets" / "images" / "flower.jpg").read_bytes()


def encoded(pixels, kind="PNG", mode=None, **options):
    image = Image.fromarray(np.asarray(pixels, np.uint8))
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def plain(colour, size=(32, 32)):
    return np.full([*size, len(colour)], colour, np.uint8)


def png(width, height, data, depth=8, colour=2):
    """A PNG file from its header and its compressed pixels."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.fixture(scope="module")
def picture():
    """Smooth colours without any symmetry, uint8 [256, 256, 3]."""
    y, x = np.mgrid[:256, :256]
    return np.stack([x, y, 255 - (x + 2 * y) // 3], axis=-1).astype(np.uint8)


def test_an_image_of_256_pixels_loses_its_border_and_nothing_else(picture):
    np.testing.assert_array_equal(read_image(encoded(picture), 224), picture[16:240, 16:240])


def test_the_longer_side_is_cut_to_the_central_square(picture):
    wide = np.concatenate([picture * 0, picture, picture * 0], axis=1)
    np.testing.assert_array_equal(read_image(encoded(wide), 224), picture[16:240, 16:240])
    high = np.concatenate([picture * 0, picture, picture * 0], axis=0)
    np.testing.assert_array_equal(read_image(encoded(high), 224), picture[16:240, 16:240])


def test_resizing_is_tensorflows_bicubic_with_antialiasing():
    photo = tf.io.decode_jpeg(FLOWER, dct_method="INTEGER_ACCURATE").numpy()[:416, :512]
    photo = photo // 2 + 64  # Pillow cuts overshoot after each of two passes, TensorFlow once.
    square = photo[26:390, 74:438].astype(np.float32)
    expected = tf.image.resize(square, [224, 224], "bicubic", antialias=True)
    difference = np.abs(read_image(encoded(photo), 224) - expected)
    # At its border the square knows what lies beyond; TensorFlow saw only the square.
    assert difference[3:-3, 3:-3].max() < 1.5


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 12),
        ("JPEG", {"quality": 95}, 12),
        ("JPEG", {"quality": 95, "progressive": True}, 12),
    ],
)
def test_formats_show_the_same_picture(kind, options, tolerance, picture):
    pixels = read_image(encoded(picture, kind, **options), 224).astype(int)
    assert np.abs(pixels - picture[16:240, 16:240]).max() <= tolerance


def test_the_first_frame_of_an_animation(picture):
    frames = [Image.fromarray(plain(colour)) for colour in ((200, 0, 0), (0, 200, 0))]
    for kind in ("GIF", "WEBP", "PNG"):
        file = io.BytesIO()
        options = {"lossless": True} if kind == "WEBP" else {}
        frames[0].save(file, kind, save_all=True, append_images=frames[1:], **options)
        np.testing.assert_array_equal(read_image(file.getvalue(), 8), plain((200, 0, 0), (8, 8)))


def test_a_jpeg_for_print():
    pixels = read_image(encoded(plain((200, 40, 90)), "JPEG", mode="CMYK", quality=95), 8)
    np.testing.assert_allclose(pixels, plain((200, 40, 90), (8, 8)), atol=4)


def test_16_bits_per_channel():
    coloured = tf.io.encode_png(plain((0x12, 0x80, 0xFE)).astype(np.uint16) * 256).numpy()
    np.testing.assert_array_equal(read_image(coloured, 8), plain((0x12, 0x80, 0xFE), (8, 8)))
    grey = tf.io.encode_png(plain((0x80,)).astype(np.uint16) * 256 + 7).numpy()
    np.testing.assert_array_equal(read_image(grey, 8), plain((0x80,) * 3, (8, 8)))


def test_grey_black_and_white_and_palette(picture):
    grey = encoded(plain((77, 77, 77)), mode="L")
    np.testing.assert_array_equal(read_image(grey, 8), plain((77, 77, 77), (8, 8)))
    white = encoded(plain((255, 255, 255)), mode="1")
    np.testing.assert_array_equal(read_image(white, 8), plain((255, 255, 255), (8, 8)))
    palette = encoded(plain((10, 200, 30)), mode="P", bits=8)
    np.testing.assert_allclose(read_image(palette, 8), plain((10, 200, 30), (8, 8)), atol=30)


def test_what_is_transparent_is_white():
    clear, half = plain((200, 0, 0, 0)), plain((200, 0, 0, 128))
    for kind in ("PNG", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        pixels = read_image(encoded(clear, kind, **options), 8)
        np.testing.assert_array_equal(pixels, plain((255, 255, 255), (8, 8)))
        pixels = read_image(encoded(half, kind, **options), 8)
        np.testing.assert_allclose(pixels, plain((227, 127, 127), (8, 8)), atol=1)
    one_colour = encoded(plain((9, 9, 9)), transparency=(9, 9, 9))
    np.testing.assert_array_equal(read_image(one_colour, 8), plain((255, 255, 255), (8, 8)))
    grey = encoded(clear, mode="LA")
    np.testing.assert_array_equal(read_image(grey, 8), plain((255, 255, 255), (8, 8)))
    file = io.BytesIO()
    Image.new("P", (32, 32), 3).save(file, "GIF", transparency=3)
    np.testing.assert_array_equal(read_image(file.getvalue(), 8), plain((255, 255, 255), (8, 8)))


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, lambda pixels: pixels),
        (2, lambda pixels: pixels[:, ::-1]),
        (3, lambda pixels: pixels[::-1, ::-1]),
        (4, lambda pixels: pixels[::-1]),
        (5, lambda pixels: pixels.swapaxes(0, 1)),
        (6, lambda pixels: np.rot90(pixels)),
        (7, lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1)),
        (8, lambda pixels: np.rot90(pixels, -1)),
    ],
)
def test_a_camera_that_was_turned(orientation, stored, picture):
    upright = picture[:200]
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("PNG", "JPEG", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        turned = encoded(stored(upright), kind, exif=exif, **options)
        straight = read_image(encoded(upright, kind, **options), 224).astype(int)
        # Losses of JPEG depend on the direction.
        tolerance = 12 if kind == "JPEG" else 1
        assert np.abs(read_image(turned, 224) - straight).max() <= tolerance


def test_damaged_metadata_do_not_hide_a_sound_picture(picture):
    for exif in (b"Exif\x00\x00II*\x00\xff\xff\xff\xff", b"Exif\x00\x00MM", b"garbage" * 9):
        pixels = read_image(encoded(picture, exif=exif), 224)
        np.testing.assert_array_equal(pixels, picture[16:240, 16:240])


def test_a_large_photo_looks_like_its_thumbnail():
    photo = Image.open(io.BytesIO(FLOWER))
    large, small = photo.resize((4000, 2668)), photo.resize((500, 334))
    files = [io.BytesIO(), io.BytesIO()]
    large.save(files[0], "JPEG", quality=95)
    small.save(files[1], "JPEG", quality=95)
    pixels = [read_image(file.getvalue(), 224).astype(int) for file in files]
    assert np.abs(pixels[0] - pixels[1]).mean() < 3


@pytest.mark.parametrize("shape", [(1, 1), (1, 100_000), (100_000, 1), (3, 50_000)])
def test_extreme_shapes(shape):
    pixels = read_image(encoded(plain((5, 6, 7), shape)), 224)
    np.testing.assert_array_equal(pixels, plain((5, 6, 7), (224, 224)))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file is empty"),
        (b"<html>404 not found</html>", "not an image in a format that is read"),
        (b"\x00" * 1000, "not an image in a format that is read"),
        (FLOWER[: len(FLOWER) // 2], "damaged image: .*truncated"),
        (encoded(plain((1, 2, 3), (500, 500)))[:-300], "damaged image"),
        # Their pixels would not decode: refusal by the header comes first.
        (png(60_000, 60_000, b"no pixels"), "more than 50,000,000"),
        (png(10_000, 8_000, b"no pixels"), "10000 x 8000 pixels are more than 50,000,000"),
        (png(2**31 - 1, 2**31 - 1, b""), "more than 50,000,000"),
        (png(0, 10, b""), "."),
        (b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"," * 50, "more than 50"),
    ],
)
def test_what_is_no_image_is_told(content, expected):
    with pytest.raises(UnreadableImage, match=expected):
        read_image(content, 224)


def test_a_limit_of_ones_own():
    content = encoded(plain((1, 2, 3), (100, 101)))
    assert read_image(content, 8, max_pixels=10_100).shape == (8, 8, 3)
    with pytest.raises(UnreadableImage, match="101 x 100 pixels are more than 10,099"):
        read_image(content, 8, max_pixels=10_099)


def test_formats_with_a_history_of_holes_are_not_even_tried():
    for kind in ("TIFF", "ICO", "PPM"):
        with pytest.raises(UnreadableImage, match="not an image in a format"):
            read_image(encoded(plain((1, 2, 3)), kind), 8)
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"
    with pytest.raises(UnreadableImage, match="not an image in a format"):
        read_image(script, 8)
