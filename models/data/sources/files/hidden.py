"""Which files of a tree are hidden, and so no images of the user: by the names of files and folders."""

from __future__ import annotations

from models.data.sources.files.image_format import is_image_name

PREFIXES = (".", "__MACOSX")
# Written by Windows, macOS, Linux, storage systems and programs, in lower case.
_SYSTEM = (
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
    *("$recycle.bin", "recycler", "system volume information", "found.000", "lost+found"),
    *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", ".@__thumb", "~snapshot"),  # Synology, QNAP
    *("__macosx", ".appledouble", ".spotlight-v100", ".fseventsd", ".trash", ".trashes", ".trash-1000"),
    *(".git", ".svn", ".hg", ".ipynb_checkpoints", ".cache", ".thumbnails", "__pycache__"),
)
HIDDEN = "hidden files and files of the operating system"
HIDDEN_FOLDERS = "folders of the operating system or of programs, whose files are not counted"
ICLOUD = "placeholders of files that are in iCloud only (open the folder in Finder and download it)"
HIDDEN_IMAGES = "images in folders whose name begins with a dot"


def is_hidden(name: str) -> bool:
    """Returns whether a file or folder name is hidden, or one that an operating system writes."""
    return name.startswith(PREFIXES) or is_of_system(name)


def is_of_system(name: str) -> bool:
    """Returns whether an operating system, or a program of it, writes files or folders of this name."""
    return name.lower() in _SYSTEM


def why_hidden(path: str) -> str:
    """Returns why a file is not listed; empty if it is. A folder whose name begins with a dot may be a class."""
    *folders, name = path.rstrip("/").split("/")
    if name.lower().endswith(".icloud"):
        return ICLOUD
    if is_hidden(name) or any(map(is_of_system, folders)):
        return HIDDEN
    if any(map(is_hidden, folders)):
        return HIDDEN_IMAGES if is_image_name(name) else HIDDEN
    return ""
