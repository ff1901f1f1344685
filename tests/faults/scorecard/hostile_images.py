"""Hostile images and arrays: `--set data.name=images`, and what `gan evaluate` is given."""

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.faults.scorecard.corpus import SPECIAL, Case, Payload, npy, png, png_chunk, special_file

# Images and arrays: `--set data.name=images --set data.root=PATH`.


def _images(
    files: Callable[[Path], object], root: str = "data", codes: tuple[int, ...] = (3,)
) -> Callable[[Path], Case]:
    def make(folder: Path) -> Case:
        data = folder / "data"
        data.mkdir()
        small = png(2, 2, b"\0\1\2\0\3\4")
        for i in range(45):
            (data / f"{i:02}.png").write_bytes(small)
        files(data)
        (folder / "it.yaml").write_text(
            f"data: {{name: images, root: {root}}}\nalgorithm: {{steps: 10, batch_size: 10}}\n"
        )
        return ["run", "it.yaml", "--name", "it", "--storage", "st", "--dry-run"], codes

    return make


def _write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda data: (data / name).write_bytes(content)


def _many(count: int, content: bytes) -> Callable[[Path], object]:
    return lambda data: [(data / f"z{i}.png").write_bytes(content) for i in range(count)]


def _jpeg(width: int, height: int) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("L", (8, 8)).save(stream, "JPEG")
    content = bytearray(stream.getvalue())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def _gif_bomb() -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("P", (2, 2)).save(stream, "GIF")
    content = bytearray(stream.getvalue())
    content[6:10] = struct.pack("<HH", 65535, 65535)
    return bytes(content)


ZEROS = zlib.compress(bytes(2**28), 9)  # a quarter of a GiB in 260 KB
IMAGES: dict[str, Callable[[Path], Case]] = {
    "a PNG that claims 10^9 pixels": _images(_write("z.png", png(40_000, 40_000))),
    "a PNG that claims 2^31 a side": _images(_write("z.png", png(2**31 - 1, 2**31 - 1))),
    "a PNG that claims no pixels": _images(_write("z.png", png(0, 0))),
    "45 PNGs of 169 million pixels": _images(_many(45, png(13_000, 13_000))),
    "45 PNGs of 88 million pixels, without them": _images(_many(45, png(9_400, 9_400))),
    "45 PNGs of 88 million pixels": _images(_many(45, png(9_400, 9_400, bytes(9_401 * 9_400)))),
    "RGBA of 88 million pixels": _images(_write("z.png", png(9_400, 9_400, bytes(9_400 * 37_601), colour=6))),
    "a text of 256 MiB in a PNG": _images(_write("z.png", png(2, 2, b"\0\1\2\0\3\4", png_chunk(b"zTXt", b"a\0\0" + ZEROS))), codes=(0, 3)),
    "a profile of 256 MiB in a PNG": _images(_write("z.png", png(2, 2, b"\0\1\2\0\3\4", png_chunk(b"iCCP", b"a\0\0" + ZEROS))), codes=(0, 3)),
    "a JPEG that claims 65,535 a side": _images(_write("z.jpg", _jpeg(65_000, 65_000))),
    "a GIF that claims 65,535 a side": _images(_write("z.gif", _gif_bomb())),
    "a TIFF whose folders are a circle": _images(_write("z.tif", b"II*\0\x08\0\0\0" + b"\x01\0" + struct.pack("<HHII", 256, 4, 1, 2) + struct.pack("<I", 8))),
    "a TIFF of 2^32 entries": _images(_write("z.tif", b"II*\0\x08\0\0\0" + b"\xff\xff" + struct.pack("<HHII", 256, 4, 2**32 - 1, 2) * 100)),
    "a WebP cut short": _images(_write("z.webp", b"RIFF\xff\xff\xff\x7fWEBPVP8L")),
    "a BMP that claims 2^31 a side": _images(_write("z.bmp", b"BM" + bytes(12) + struct.pack("<IiiHHIIiiII", 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0))),
    "HTML named .png": _images(_write("z.png", b"<!DOCTYPE html><html><script>1</script></html>")),
    "EPS named .png": _images(_write("z.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(executed) (w) file\n")),
    "a pickle named .png": _images(lambda data: (data / "z.png").write_bytes(pickle.dumps(Payload(data.parent)))),
    "an empty PNG": _images(_write("z.png", b"")),
    "an endless name": _images(_write("\x1b[31m\nz\u202e.png", b"x")),
    "a circle of folders": _images(lambda data: (data / "z").symlink_to(data), codes=(0, 3)),
    **{f"{kind} named .png": _images(lambda data, kind=kind: special_file(kind, data / "z.png"), codes=(0, 3)) for kind in SPECIAL},
    **{f"{kind} named .parquet": _images(lambda data, kind=kind: special_file(kind, data.parent / "z.parquet"), "z.parquet") for kind in SPECIAL},
    **{f"{kind} named .npy": _images(lambda data, kind=kind: special_file(kind, data.parent / "z.npy"), "z.npy") for kind in SPECIAL},
}  # fmt: skip


def _parquet_bomb() -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    stream = io.BytesIO()
    one = bytes(2**27)
    parquet.write_table(pa.table({"image": [one] * 8}), stream, compression="zstd", use_dictionary=True)
    return stream.getvalue()


def _array(
    content: Callable[[Path], bytes], name: str = "z.npy", codes: tuple[int, ...] = (3,)
) -> Callable[[Path], Case]:
    return _images(lambda data: (data.parent / name).write_bytes(content(data.parent)), name, codes)


def _pickled(folder: Path) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([Payload(folder)], dtype=object), allow_pickle=True)
    return stream.getvalue()


def _zipped(folder: Path) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.array([Payload(folder)], dtype=object))
    return stream.getvalue()


def _header(descr: str, shape: str, content: bytes = b"", version: tuple[int, int] = (1, 0)) -> Callable[[Path], bytes]:
    return lambda folder: npy(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}", content, version)


ARRAYS: dict[str, Callable[[Path], Case]] = {
    "an array of objects": _array(_pickled),
    "an archive of objects": _array(_zipped),
    "a pickle": _array(lambda folder: pickle.dumps(Payload(folder))),
    "10^15 images claimed": _array(_header("'<f4'", "(1000000000000000, 8, 8)")),
    "2^70 images claimed": _array(_header("'<f4'", f"({2**70}, 8, 8)")),
    "-1 images": _array(_header("'<f4'", "(-1, 8, 8)")),
    "no images": _array(_header("'<f4'", "(0, 8, 8)")),
    "images of 0 pixels": _array(_header("'|u1'", "(1000000000000, 0, 8)")),
    "10^5 dimensions": _array(_header("'<f4'", "(" + "1," * 20_000 + ")", version=(2, 0))),
    "code for a shape": _array(_header("'<f4'", "(__import__('os').mkdir('executed'), 8, 8)")),
    "deep brackets for a header": _array(lambda folder: npy("(" * 9_000)),
    "a header of 4 GB": _array(lambda folder: b"\x93NUMPY\2\0\xff\xff\xff\xff{"),
    "a version of later": _array(lambda folder: npy("{}", version=(9, 9))),
    "an object's type": _array(_header("'|O'", "(50, 8, 8)", bytes(1000))),
    "a type of 2^30 bytes": _array(_header("'|V1073741824'", "(50, 8, 8)")),
    "text": _array(_header("'<U9'", "(50, 8, 8)", bytes(50 * 64 * 36))),
    "complex": _array(_header("'<c8'", "(50, 8, 8)", bytes(50 * 64 * 8))),
    "not a number": _array(_header("'<f4'", "(50, 8, 8)", b"\xff" * 50 * 64 * 4)),
    "an archive's bomb": _array(lambda folder: _zip_bomb()),
    "a Parquet bomb": _array(lambda folder: _parquet_bomb(), "z.parquet"),
    "a Parquet file cut short": _array(lambda folder: b"PAR1" + b"\xff" * 20 + b"\xff\xff\xff\x7fPAR1", "z.parquet"),
    "Parquet in name only": _array(lambda folder: pickle.dumps(Payload(folder)), "z.parquet"),
}


def _zip_bomb() -> bytes:

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "a.npy", npy("{'descr': '|u1', 'fortran_order': False, 'shape': (268435456,), }") + bytes(2**28)
        )
    return stream.getvalue()


def scored(name: str) -> Callable[[Path], Case]:
    """The same arrays, given to `gan evaluate`; none of them can be scored."""

    def make(folder: Path) -> Case:
        ARRAYS[name](folder)
        np.save(folder / "points.npy", np.random.default_rng(0).random((20, 64)))
        samples = "z.npy" if (folder / "z.npy").exists() else "z.parquet"
        return ["evaluate", "--samples", samples, "--points", "points.npy"], (3,)

    return make


def images() -> dict[str, Callable[[Path], Case]]:
    """All of them, by name."""
    return {
        **{f"images: {name}": make for name, make in IMAGES.items()},
        **{f"array: {name}": make for name, make in ARRAYS.items()},
        **{f"scored: {name}": scored(name) for name in ARRAYS if "Parquet" not in name},
    }
