"""From the bytes of an image file to the pixels a network takes, for files from anywhere."""

import io
import math

import numpy as np
from PIL import ExifTags, Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""Formats read, by the names that Pillow gives them."""

MAX_PIXELS = 50_000_000
"""More pixels than this are not decoded: a file of some kilobytes can announce gigabytes."""

# What the shorter side of an image is to a network's side when networks are tested on ImageNet.
_CROP_FRACTION = 0.875
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(Exception):
    """The content has no pixels for us; the message says why, as a short phrase."""


def read_image(content: bytes, side: int, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Returns the middle of an image in RGB, uint8 [side, side, 3].

    The central square with 7/8 of the shorter side is taken and resized by bicubic interpolation,
    as ImageNet networks are tested. Unlike there, more pixels than needed are averaged instead of
    skipped, so that a picture and its thumbnail look alike. EXIF orientation is respected;
    transparent parts become white; of an animation the first frame is read.

    Args:
        content: bytes of a file in one of `FORMATS`.
        side: side of the result.
        max_pixels: an image whose header announces more is refused before it is decoded.

    Raises:
        UnreadableImage: there is no such image in the content.
    """
    if not content:
        raise UnreadableImage("the file is empty")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return _central_square(image, side, max_pixels)
    except UnreadableImage:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"more than {max_pixels:,} pixels") from error
    except Image.UnidentifiedImageError as error:
        formats = ", ".join(FORMATS)
        raise UnreadableImage(f"not an image in a format that is read ({formats})") from error
    except Exception as error:  # What a decoder raises for a damaged file is not documented.
        raise UnreadableImage(f"damaged image: {error or type(error).__name__}") from error


def _central_square(image: Image.Image, side: int, max_pixels: int) -> np.ndarray:
    width, height = image.size
    if width * height > max_pixels:
        raise UnreadableImage(f"{width} x {height} pixels are more than {max_pixels:,}")
    # A large JPEG is decoded at a fraction of its size; still, its square is twice as wide as ours.
    enough = int(2 * side / _CROP_FRACTION)
    image.draft(None, (enough, enough))
    image.load()
    width, height = image.size
    square = _CROP_FRACTION * min(width, height)
    left, top = (width - square) / 2, (height - square) / 2
    # Whole pixels first: converting the rest of a panorama would be in vain.
    corner = (int(left), int(top))
    cropped = image.crop((*corner, math.ceil(left + square), math.ceil(top + square)))
    box = (left - corner[0], top - corner[1], left - corner[0] + square, top - corner[1] + square)
    pixels = _to_rgb(cropped).resize((side, side), Image.Resampling.BICUBIC, box)
    turn = _TURNS.get(_orientation(image))
    return np.asarray(pixels if turn is None else pixels.transpose(turn))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey; Pillow's own conversion cuts at 255.
        grey = np.asarray(image).astype(np.uint32) >> 8
        image = Image.fromarray(grey.astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        return Image.alpha_composite(white, coloured).convert("RGB")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Damaged metadata around a sound picture.
        return 1
