"""What lies below the folders that would be the classes: splits, or the classes themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations

from conf.text import list_some
from infra.errors import ConfigError
from models.data.sources.split_names import has_splits, kind_of, names_no_class, names_unlabelled, short_kinds
from models.data.sources.splits import WHOLE_TREE

Paths = Sequence[Sequence[str]]  # the folders and the name of each image
_SHARE = 0.8  # of the folders that would be classes: some of many patients may lack a class
_FEW = 4  # top folders, which may be splits or versions of one set though some lack a class
_WHOLE = f"data.train_folders=[{WHOLE_TREE}] takes the top folders as the classes, without splits"


def one_of_each_folder(images: Iterable[str]) -> list[str]:
    """Returns an image of each folder: what lies below the classes depends on the folders, of which there are few."""
    return list({name.rpartition("/")[0]: name for name in images}.values())


def select_classes(images: Collection[str], folders: Sequence[str], root: str) -> list[str]:
    """Returns the top folders of a tree without splits that are classes: not those named after unlabelled images.

    Args:
        images: Paths of images below the common top folder, at least one of each folder.
        folders: The top folders.
        root: The tree, for messages.

    Raises:
        ConfigError: A folder that may hold the classes is beside others, as ``images`` beside ``resized``.
    """
    classes = [folder for folder in folders if not names_unlabelled(folder)]
    for folder, paths in group_by_class(images, [f"{folder}/" for folder in classes]).items():
        prefix, below = find_branches(paths)
        is_container = len(classes) == 1 or (kind_of(folder) is None and names_no_class(folder))
        if is_container and len(below) > 1 and len(folders) > 1:
            others = list_some(one for one in folders if f"{one}/" != folder)
            raise ConfigError(
                f"{root}: {folder} has the folders {list_some(sorted(below))} and is beside {others}: "
                f"data.train_folders=[{folder}{prefix}] takes them as the classes, data.train_folders=[{WHOLE_TREE}] "
                "the top folders"
            )
    return classes if len(classes) > 1 else list(folders)


def read_splits_below(images: Collection[str], root: str) -> tuple[dict[str, str], dict[str, str]]:
    """Returns class and kind of split by image where the splits are below the classes, as ``CLASS/{train,test}/IMAGE``.

    Args:
        images: Paths of the images below the common top folder.
        root: The tree, for messages.

    Returns:
        Two empty dicts for other layouts.

    Raises:
        ConfigError: Some top folders hold train and a held-out split, and others do not, or the splits hold folders.
    """
    inside: dict[str, list[list[str]]] = {}
    for name in one_of_each_folder(images):
        top, *path = name.split("/")
        if path:
            inside.setdefault(top, []).append(path)
    branches = {top: find_branches(paths) for top, paths in inside.items()}
    divided = {top: branch for top, branch in branches.items() if has_splits(branch[1])}
    if not divided or len(inside) < 2:
        return {}, {}
    for top, (prefix, folders) in divided.items():
        _refuse_deep(top, prefix, folders, inside[top], root)
    first = next(iter(divided))
    kind_in: dict[str, str] = {}
    for top, paths in inside.items():
        prefix = divided[top][0] if top in divided else ""
        for path in paths:
            kind = kind_of(path[-2]) if top in divided and len(path) == prefix.count("/") + 2 else None
            if kind is None or "train" not in map(kind_of, divided[top][1]):
                what = f"{path[-2]}/" if len(path) > 1 else "images in no folder"
                raise ConfigError(
                    f"{root}: {first}/ has the splits {' and '.join(sorted(divided[first][1]))} by their names, and "
                    f"{top}/ has {what}: move the splits above the classes; {_WHOLE}"
                )
            kind_in["/".join((top, *path[:-1]))] = kind
    labels, kinds = {}, {}
    for name in images:
        if (kind := kind_in.get(name.rpartition("/")[0])) is not None:
            labels[name], kinds[name] = name.partition("/")[0], kind
    return labels, kinds


def _refuse_deep(top: str, prefix: str, folders: Collection[str], paths: Paths, root: str) -> None:
    """Refuses folders in the splits below a top folder, which may be the classes.

    Args:
        top: The top folder.
        prefix: Path from there to the splits, which ends with ``/`` or is empty.
        folders: The splits.
        paths: Images in the top folder, one of each folder.
        root: The tree, for messages.
    """
    depth = prefix.count("/")
    below: dict[str, set[str]] = {folder: set() for folder in folders}
    for path in paths:
        if len(path) > depth + 2:
            below[path[depth]].add(path[depth + 1])
    split = next((folder for folder in sorted(folders) if below[folder] and kind_of(folder) == "train"), None)
    if split is None:
        return
    train = [f"{top}/{prefix}{folder}" for folder in sorted(folders) if kind_of(folder) == "train"]
    held_out = [f"{top}/{prefix}{folder}" for folder in sorted(folders) if kind_of(folder) in ("val", "test")]
    others = set().union(*(below[folder] for folder in folders if kind_of(folder) in ("val", "test")))
    settings = f"data.train_folders=[{','.join(train)}] data.val_folders=[{','.join(held_out)}]"
    remedy = f"{settings} takes these as the classes"
    if len(below[split]) == 1 and len(others) > 1:
        remedy = (
            "as in data for anomaly detection, such as MVTec AD, whose train has no image of a defect: no classifier "
            f"can be trained on it; data.train_folders=[{','.join(held_out)}] takes the held-out images of {top} alone"
        )
    raise ConfigError(
        f"{root}: {top}/{prefix}{split}/ is a split by its name, and has folders of its own, "
        f"{list_some(sorted(below[split]))}: {remedy}; {_WHOLE}"
    )


def are_at_level(inside: Mapping[str, Paths], level: int) -> bool:
    """Whether the folders in the classes are at a level, at which 1 is that of the classes.

    Args:
        inside: Paths below each class, as ``group_by_class`` returns them.
        level: ``data.group_level``.
    """
    branches = (find_branches(paths) for paths in inside.values())
    return {2 + prefix.count("/") for prefix, folders in branches if folders} == {level}


def describe_shared(inside: Mapping[str, Paths], images: Collection[str] = ()) -> tuple[str, ...]:
    """Returns a remark if every class, but for a few, has the same folders, which may be the classes, or splits.

    Folders that hold all images of their class are skipped, as ``Data`` in ``candle/Data/Images``.

    Args:
        inside: Paths below each class, as ``group_by_class`` returns them.
        images: Paths of all images, if the top folders may be splits, of which that with the most images is train;
            without them the remark is short, since the splits are known and so are most of the other readings.
    """
    below = {folder: find_branches(paths) for folder, paths in inside.items()}
    shared = _find_shared({folder: folders for folder, (_, folders) in below.items()}) or _find_known(inside, below)
    if not shared:
        return ()
    top = min((folder for folder, (_, folders) in below.items() if folders), default=min(below))
    prefix = below[top][0]
    one, level = f"{top}{prefix}".rstrip("/"), 2 + prefix.count("/")
    what = (
        f"every class has the same folders {list_some(sorted(shared))}, which count neither as classes nor as splits: "
    )
    if not images and has_splits(shared) and None not in map(kind_of, shared):
        return (f"{what}they are splits by their names, and taken as such without data.train_folders",)
    if not images:
        return (
            f"{what}data.class_level={level} takes them as the classes, "
            f"data.group_level={level} keeps each in one split",
        )
    are_splits = ""
    if level == 2 and len(inside) <= _FEW and not short_kinds(shared):
        counts = Counter(name.partition("/")[0] for name in images)
        train, *held_out = sorted((one.rstrip("/") for one in inside), key=lambda one: (-counts[one], one))
        are_splits = (
            f"if {', '.join(sorted([train, *held_out]))} are splits, data.train_folders=[{train}] "
            f"data.val_folders=[{','.join(sorted(held_out))}] takes them; "
        )
    return (
        f"{what}{are_splits}"
        f"if they are the classes, data.class_level={level} takes them, with data.group_level=1 if all images "
        "of a folder above them, as of a patient, are to be in one split, or data.train_folders and "
        f"data.val_folders name the folders above them, and data.train_folders=[{one}] takes those of one alone, as of "
        "several versions of a set; if they are groups, as the patients of every class, "
        f"data.group_level={level} keeps each in one split; "
        "if they are splits, name them train, val and test; "
        f"data.train_folders=[{WHOLE_TREE}] takes the top folders as the classes",
    )


def _find_shared(below: Mapping[str, Collection[str]]) -> set[str]:
    """Returns the folders that are in every top folder but for a few; empty if a few have others, too.

    A few top folders may be splits or versions of a set, of which one lacks classes: then half of its folders count.
    """
    counts = Counter(folder for folders in below.values() for folder in folders)
    if 1 < len(below) <= _FEW:
        common = [(set(one) & set(other), one, other) for one, other in combinations(below.values(), 2)]
        if all(len(both) > 1 and 2 * len(both) >= min(len(one), len(other)) for both, one, other in common):
            return {folder for folder, count in counts.items() if count > 1}
    shared = {folder for folder, count in counts.items() if count >= _SHARE * len(below)}
    complete = sum(folders == shared for folders in below.values())
    return shared if len(below) > 1 and len(shared) > 1 and complete >= _SHARE * len(below) else set()


def _find_known(inside: Mapping[str, Paths], below: Mapping[str, tuple[str, set[str]]]) -> set[str]:
    """Returns the folders in more top folders than there are such folders, where no top folder has one of its own.

    As of many patients, of whom many lack a class, so that some have a single one.
    """
    depths = Counter(prefix.count("/") for prefix, folders in below.values() if folders)
    if not depths:
        return set()
    depth = depths.most_common(1)[0][0]
    folders = [{path[depth] for path in paths if len(path) > depth + 1} for paths in inside.values()]
    counts = Counter(one for some in folders for one in some)
    is_known = all(folders) and 2 <= len(counts) < len(folders) and 2 * min(counts.values()) >= len(folders)
    return set(counts) if is_known else set()


def describe_nested(inside: Mapping[str, Paths], group_level: int | None) -> tuple[str, ...]:
    """Returns a remark if the images of all classes are in several folders of theirs, which may be the classes.

    As the species in ``Aves/1234`` of iNaturalist, beside those of other groups.

    Args:
        inside: Paths below each class, as ``group_by_class`` returns them.
        group_level: ``data.group_level``.
    """
    branches = {folder: find_branches(paths) for folder, paths in inside.items()}
    below = {folder: folders for folder, (_, folders) in branches.items()}
    is_direct = any(len(path) == 1 for paths in inside.values() for path in paths)
    if is_direct or not below or min(map(len, below.values())) < 2:
        return _describe_some(inside, branches)
    top, levels = min(below), {2 + prefix.count("/") for prefix, _ in branches.values()}
    return (
        f"all images are in folders of the classes ({list_some(sorted(below[top]))} in {top}{branches[top][0]}), "
        f"{sum(map(len, below.values())):,} in all, and count as those of the class above: "
        f"{_advise(inside, levels, group_level)}",
    )


def _advise(inside: Mapping[str, Paths], levels: Collection[int], group_level: int | None) -> str:
    """Returns the settings that take the folders below the classes as classes, and those that may be groups as groups.

    Args:
        inside: Paths below each class.
        levels: The levels of the folders, at which 1 is that of the classes.
        group_level: ``data.group_level``.
    """
    if len(levels) > 1:  # a level would take folders that hold others as classes
        return "data.train_folders names folders whose folders are the classes"
    (level,) = levels
    groups = find_groups(inside.values(), level - 1) or find_groups(inside.values(), level - 2)
    hint = f"; data.group_level={groups + 1} keeps the images of each folder there, as of a patient, in one split"
    return f"data.class_level={level} takes them as the classes" + hint * (groups > 0 and group_level is None)


def find_groups(classes: Iterable[Paths], above: int) -> int:
    """Returns the first level of folders that may be groups: several in each class, and each in one class only.

    Args:
        classes: Paths below each class.
        above: Number of levels to skip.

    Returns:
        The level below the classes, from 1 on; 0 for none.
    """
    some = list(classes)
    depth = min((len(path) for paths in some for path in paths), default=1) - 1
    for level in range(above, depth):
        folders = [{path[level] for path in paths} for paths in some]
        if len(some) > 1 and min(map(len, folders)) > 1 and sum(map(len, folders)) == len(set().union(*folders)):
            return level + 1
    return 0


def _describe_some(inside: Mapping[str, Paths], branches: Mapping[str, tuple[str, set[str]]]) -> tuple[str, ...]:
    """Returns a remark if some classes have several folders, as genera of several species beside genera of one."""
    several = {folder: branch for folder, branch in branches.items() if len(branch[1]) > 1}
    if not several or len(inside) < 2:
        return ()
    top, level = min(several), 2 + min(prefix.count("/") for prefix, _ in several.values())
    direct = sorted(folder.rstrip("/") for folder, paths in inside.items() if any(len(path) < level for path in paths))
    lost = f", without the images directly in {list_some(direct)}, which have no such folder" if direct else ""
    return (
        f"{len(several):,} of {len(inside):,} classes have several folders ({list_some(sorted(several[top][1]))} in "
        f"{f'{top}{several[top][0]}'.rstrip('/')}), whose images count as those of the class above: "
        f"data.class_level={level} takes the folders of that level as the classes{lost}",
    )


def refuse_initials(inside: Mapping[str, Paths], root: str) -> None:
    """Refuses folders that are the first letters of the folders in them, as ``a/abbey`` and ``b/bakery`` of SUN397.

    Args:
        inside: Paths below each class, as ``group_by_class`` returns them.
        root: The tree, for messages.

    Raises:
        ConfigError: They are.
    """
    tops = {folder.rstrip("/").rpartition("/")[2]: paths for folder, paths in inside.items()}
    below = {top: {path[0] for path in paths if len(path) > 1} for top, paths in tops.items()}
    are_initials = all(
        len(top) == 1
        and below[top]
        and all(len(path) > 1 for path in paths)
        and all(folder[:1].casefold() == top.casefold() and len(folder) > 1 for folder in below[top])
        for top, paths in tops.items()
    )
    if len(tops) > 1 and are_initials:
        raise ConfigError(
            f"{root}: the folders {list_some(sorted(tops))} are the first letters of the folders in them, as "
            f"{min(below[min(tops)])}: data.class_level=2 takes these as the classes, "
            f"data.train_folders=[{WHOLE_TREE}] the top folders"
        )


def refuse_copies(inside: Mapping[str, Paths], root: str) -> None:
    """Refuses a folder beside the classes that has folders of their names, as ``augmented/{ant,bee}`` beside ``ant``.

    Args:
        inside: Paths below each class, as ``group_by_class`` returns them.
        root: The tree, for messages.

    Raises:
        ConfigError: There is one.
    """
    names = {folder: folder.rstrip("/").rpartition("/")[2] for folder in inside}
    for folder, paths in inside.items():
        prefix, below = find_branches(paths)
        shared = below & (set(names.values()) - {names[folder]})
        if len(shared) > 1 and 2 * len(shared) >= len(below):
            raise ConfigError(
                f"{root}: {folder} has folders of the names of classes beside it, {list_some(sorted(shared))}, as "
                f"another version of the set has: move it out of the tree, or data.train_folders=[{folder}{prefix}] "
                f"takes its classes alone, data.train_folders=[{WHOLE_TREE}] all top folders as classes"
            )


def group_by_class(images: Collection[str], classes: Collection[str]) -> Mapping[str, Paths]:
    """Returns the paths of the images below each class that has some.

    Args:
        images: Paths of images, at least one of each folder.
        classes: Folders of the classes, at the top or in that of a split, which end with ``/``.
    """
    inside: dict[str, list[list[str]]] = {folder: [] for folder in classes}
    for name in images:
        parts = name.split("/")
        for depth in (1, 2):
            folder = "/".join(parts[:depth]) + "/"
            if folder in inside and len(parts) > depth:
                inside[folder].append(parts[depth:])
    return {folder: paths for folder, paths in inside.items() if paths}


def find_branches(paths: Paths) -> tuple[str, set[str]]:
    """Returns the path of the folders that all images are in, and the folders in which they divide below it."""
    depth = 0
    while paths and min(map(len, paths)) > depth + 1 and len({path[depth] for path in paths}) == 1:
        depth += 1
    prefix = "".join(f"{folder}/" for folder in paths[0][:depth]) if paths else ""
    return prefix, {path[depth] for path in paths if len(path) > depth + 1}
