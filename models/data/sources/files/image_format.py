"""Tells the format of a file from its first bytes, and what to do with one that is not read.

Source of the signatures: the specification of each format; freedesktop.org shared-mime-info 2.4 for those of cameras.
"""

from __future__ import annotations

import re

from models.data.sources.files.camera_raw import SUFFIXES as RAW_SUFFIXES
from models.data.sources.files.camera_raw import is_raw

HEAD_BYTES = 64
DECODED = ("JPEG", "PNG")  # formats that shards contain
CONVERTIBLE = ("WebP", "BMP", "GIF", "TIFF")  # formats that data.convert turns into PNG
TEXT, EMPTY, UNKNOWN = "text", "empty", "unknown"
SVG = "SVG"  # by its suffix, too: it is text
PACKED = ("zip", "gzip", "bzip2", "xz", "Zstandard", "7z", "RAR")
RAW = "camera raw"
LFS, OTHER_LFS = "Git LFS pointer", "Git LFS pointer of another file"
# Texts in place of images: what a failed download leaves, and others.
WEB_PAGE, ERROR, XML, JSON, HTTP = "web page", "error message of an object store", "XML", "JSON", "HTTP answer"
ANNEX, BASE64, RECODED = "git-annex pointer", "base64", "re-encoded image"
KINDS_OF_TEXT = (WEB_PAGE, ERROR, XML, JSON, HTTP, ANNEX, BASE64, RECODED)
ZEROS, CONVERTED_PNG = "zero-filled", "line-converted PNG"
DVC, SHORTCUT = "DVC pointer", "shortcut"
_MISNAMED = "misnamed "  # before what a file is that has the suffix of an image
SUFFIXES = (".jpg", ".jpeg", ".png")  # of files whose format is checked only when they are read
IMAGE_SUFFIXES = (
    *SUFFIXES,
    *(".jpe", ".jfif", ".jif", ".pjpeg", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif"),
    *(".jp2", ".j2k", ".jxl", ".ppm", ".pgm", ".pnm", ".apng", *RAW_SUFFIXES),
)
_BY_SUFFIX = {
    **dict.fromkeys((".dcm", ".dicom"), "DICOM"),
    **dict.fromkeys((".nii", ".nii.gz"), "NIfTI"),
    **dict.fromkeys((".fits", ".fits.gz"), "FITS"),
    **dict.fromkeys((".nrrd", ".mha", ".mhd"), "NRRD or MetaImage"),
}  # formats of medicine and astronomy, whose first bytes are zeros or text
_OTHERS = (*_BY_SUFFIX.values(), "HEIC", "AVIF", "JPEG XL", "JPEG 2000", "Photoshop", "OpenEXR", "PNM", "icon")
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_POINTERS = {
    ".dvc": DVC,
    ".url": SHORTCUT,
    ".webloc": SHORTCUT,
    ".lnk": SHORTCUT,
}  # suffixes after the name of an image
_FETCH = "as a failed download leaves: fetch them again"
_REMEDIES = {
    **dict.fromkeys(CONVERTIBLE, "data.convert=true converts them to PNG"),
    **dict.fromkeys((WEB_PAGE, ERROR, XML, JSON, HTTP, TEXT, EMPTY, f"{EMPTY} image"), _FETCH),
    ZEROS: "as a full disk or a crash leaves: copy them again",
    RECODED: "saved as text, which loses the pixels: copy them again",
    CONVERTED_PNG: "transferred as text, which converts line ends: copy them again as binary files",
    SHORTCUT: "copy the images that they lead to",
    ANNEX: "git annex get fetches the images",
    DVC: "dvc pull fetches the images",
    BASE64: "decode them",
    **dict.fromkeys((*PACKED, *(f"{kind} image" for kind in PACKED)), "decompress them"),
    **dict.fromkeys(_OTHERS, "convert them to JPEG or PNG"),
    RAW: "export their pixels as JPEG or PNG; the previews in them are not taken",
    LFS: "git lfs pull fetches the images",
}
_SIGNATURES = (
    (b"IIU\0", RAW),  # Panasonic
    (b"IIRO", RAW),  # Olympus
    (b"IIRS", RAW),
    (b"MMOR", RAW),
    (b"FUJIFILMCCD-RAW", RAW),
    (b"FOVb", RAW),  # Sigma
    (b"\0MRM", RAW),  # Minolta
    (b"\xff\xd8", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\x89PNG", CONVERTED_PNG),
    (b"\xef\xbf\xbd\xef\xbf\xbd", RECODED),  # of a JPEG, whose bytes are no text
    (b"\xef\xbf\xbdPNG", RECODED),
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
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"mif1", b"msf1"), "HEIC"),
    b"crx ": RAW,  # Canon
}
_BEGINNING = 1024  # bytes of a text that tell what it is
_TEXTS = tuple(
    (name, re.compile(pattern, re.IGNORECASE | re.DOTALL))
    for name, pattern in (
        (WEB_PAGE, rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<(!doctype\s+html|html|head|body|script|title|meta|p>|h1)"),
        (ERROR, rb"(<\?xml[^>]*>\s*)?<(Error|ErrorResponse)\b"),
        (SVG, rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!doctype\s+svg[^>]*>\s*)?<svg"),
        (XML, rb"<"),
        (HTTP, rb"HTTP/\d"),
        (ANNEX, rb"\S*/?annex/objects/"),
        (BASE64, rb"(data:image/|/9j/4|iVBORw0KGgo)"),
        (JSON, rb"[{\[]\s*[\"{\[\]}]"),
    )
)
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
        return RAW
    if head[6:14] == b"HEAPCCDR" or (head[:4] in (b"II*\0", b"MM\0*") and head[8:12] in (b"IIII", b"MMMM")):
        return RAW  # of older cameras of Canon, and of Phase One
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    return TEXT if all(byte >= 32 or byte in _TEXT_CONTROL for byte in head) else UNKNOWN


def identify_content(data: bytes) -> str:
    """Returns the format as ``identify_format``, but tells raw images among TIFFs, and kinds of text.

    Args:
        data: The whole file, or its beginning.
    """
    kind = identify_format(data[:HEAD_BYTES])
    if kind == "TIFF" and is_raw(data):
        return RAW
    if kind == UNKNOWN and not any(data[:_BEGINNING]):
        return ZEROS
    if kind != TEXT:
        return kind
    beginning = data[:_BEGINNING].removeprefix(b"\xef\xbb\xbf").lstrip()
    return next((name for name, pattern in _TEXTS if pattern.match(beginning)), TEXT)


def identify_named(head: bytes, name: str) -> str:
    """Returns the format of a file by its beginning and its name, as far as its bytes do not tell.

    Raw images are TIFFs, SVG is text, and what is no image but has the suffix of one is misnamed.
    """
    kind, name = identify_format(head), name.lower()
    if kind == "TIFF" and name.endswith(RAW_SUFFIXES):
        return RAW
    if kind == TEXT and name.endswith(".svg"):
        return SVG
    if kind in (TEXT, UNKNOWN, "gzip") and (known := next((one for one in _BY_SUFFIX if name.endswith(one)), "")):
        return _BY_SUFFIX[known]
    stem, dot, suffix = name.rpartition(".")
    if stem.endswith(IMAGE_SUFFIXES) and kind in (TEXT, UNKNOWN) and f"{dot}{suffix}" in _POINTERS:
        return _POINTERS[f"{dot}{suffix}"]
    is_packed = kind in PACKED and name.endswith(_COMPRESSED)
    if not (stem if is_packed else name).endswith(IMAGE_SUFFIXES):
        return OTHER_LFS if kind == LFS else kind
    if is_packed or kind == EMPTY:
        return f"{kind} image"
    content = identify_content(head)
    return _MISNAMED + content if kind in (TEXT, "PDF", *PACKED) else content


def describe_kind(kind: str) -> str:
    """Returns the name of a format, and what to do with files of it, for messages."""
    remedy = _REMEDIES.get(kind.removeprefix(_MISNAMED), "")
    return f"{kind} ({remedy})" if remedy else kind


def describe_files(kind: str) -> str:
    """Returns the plural of what files of a format are, as ``WebP files``, and what to do with them."""
    described = describe_kind(kind)
    return f"{kind} files{described[len(kind) :]}"


def is_image_name(path: str) -> bool:
    """Returns whether a path has a suffix of JPEG or PNG."""
    return path.lower().endswith(SUFFIXES)
