import struct
import zlib

import cv2
import numpy as np
import pytest
from denoised.config.refusal import Refusal
from denoised.plugins.defect_synthesis import picture

LIMIT = 1_000_000


def some(shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def as_file(image, suffix):
    return cv2.imencode(suffix, image)[1].tobytes()


def refusal(data, limit=LIMIT):
    with pytest.raises(Refusal) as caught:
        picture.decode(data, "params.image.path", limit)
    assert caught.value.field == "params.image.path"
    return caught.value


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff"])
@pytest.mark.parametrize("shape", [(40, 57), (57, 40, 3)])
def test_size_is_read_from_the_header_as_decoding_finds_it(suffix, shape):
    assert picture.size_of(as_file(some(shape), suffix)) == (shape[1], shape[0])


@pytest.mark.parametrize(
    "shape, dtype, suffix",
    [
        ((40, 57), np.uint8, ".png"),
        ((40, 57), np.uint16, ".png"),
        ((40, 57, 3), np.uint8, ".bmp"),
        ((40, 57, 4), np.uint8, ".png"),
    ],
)
def test_pixels_come_as_they_are_stored(shape, dtype, suffix):
    image = some(shape, dtype)
    decoded = picture.decode(as_file(image, suffix), "params.image.path", LIMIT)
    assert decoded.dtype == dtype and (decoded == image).all()
    assert (picture.decode(picture.encode(image), "f", LIMIT) == image).all()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_a_truncated_picture_is_refused_wherever_it_ends(suffix, share):
    data = as_file(some((200, 220)), suffix)
    assert refusal(data[: int(len(data) * share)]).code == "input"


@pytest.mark.parametrize(
    "data", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(50), b"plain text, no picture", b"\xff\xd8\xff" * 9]
)
def test_what_is_no_picture_is_refused_as_input(data):
    refused = refusal(data)
    assert refused.code == "input" and "PNG, JPEG, BMP or TIFF" in refused.message


def test_a_picture_bomb_is_refused_before_it_is_decoded():
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    refused = refusal(bomb, 64_000_000)
    assert refused.code == "too-large" and "60000 x 60000" in refused.message and "64 megapixels" in refused.message


def test_the_limit_itself_is_still_taken():
    data = as_file(some((40, 50)), ".png")
    assert picture.decode(data, "f", 2000).shape == (40, 50)
    assert refusal(data, 1999).code == "too-large"


def test_float_pixels_and_tiny_pictures_are_refused():
    assert refusal(as_file(np.zeros((40, 40), np.float32), ".tiff")).code == "input"
    assert refusal(as_file(some((8, 8)), ".png")).code == "input"


def test_grey_of_a_grey_picture_is_the_picture_and_alpha_does_not_count():
    image = some((20, 20, 4))
    assert (picture.grey_of(image[..., 0]) == image[..., 0]).all()
    assert (picture.grey_of(image) == picture.grey_of(np.ascontiguousarray(image[..., :3]))).all()
