"""Tells the format of a file from its first bytes.

Source of the signatures: the specification of each format; freedesktop.org shared-mime-info 2.4 for those of cameras.
"""

from __future__ import annotations

HEAD_BYTES = 64
DECODED = ("JPEG", "PNG")  # formats that shards contain
CONVERTIBLE = ("WebP", "BMP", "GIF", "TIFF")  # formats that data.convert turns into PNG
TEXT, EMPTY, UNKNOWN = "text", "empty", "unknown"
SVG = "SVG"  # by its suffix, too: it is text
PACKED = ("zip", "gzip", "bzip2", "xz", "Zstandard", "7z", "RAR")
LFS = "Git LFS pointer (git lfs pull fetches the image)"
SUFFIXES = (".jpg", ".jpeg", ".png")  # of files whose format is checked only when they are read
_SIGNATURES = (
    (b"\xff\xd8", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"8BPS", "Photoshop"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"P5\n", "PNM"),
    (b"P6\n", "PNM"),
    (b"\0\0\1\0", "icon"),
    (b"\x93NUMPY", "NumPy"),
    (b"PK\x03\x04", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "Zstandard"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!", "RAR"),
    (b"%PDF", "PDF"),
    (b"PAR1", "Parquet"),
    (b"\x89HDF", "HDF5"),
    (b"version https://git-lfs.github.com/spec/", LFS),
    (b"\xff\xfe", TEXT),  # UTF-16
    (b"\xfe\xff", TEXT),
)
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC"}
_TEXT_CONTROL = frozenset(b"\t\n\r\f\x1b")


def identify_format(head: bytes) -> str:
    """Returns the name of a format, ``text``, ``empty`` or ``unknown``.

    Args:
        head: The first ``HEAD_BYTES`` of the file, or all of it.
    """
    if not head:
        return EMPTY
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[:2] == b"BM" and head[6:10] == bytes(4):  # the reserved fields, since text may begin with BM
        return "BMP"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "video")
    if head[:4] == b"II*\0" and head[8:10] == b"CR":  # of Canon, whose TIFF is a preview
        return "camera raw"
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    return TEXT if all(byte >= 32 or byte in _TEXT_CONTROL for byte in head) else UNKNOWN


def is_image_name(path: str) -> bool:
    """Returns whether a path has a suffix of JPEG or PNG."""
    return path.lower().endswith(SUFFIXES)
