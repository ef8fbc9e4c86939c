"""preprocess.py --check: decode every image of a data set as training does, and list what is wrong with it."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from tqdm import tqdm

from src import schema
from src.data.fixed_split import fixed_split
from src.data.image_source import ImageList, Source, readable
from src.data.inspection import Inspection, inspect_files, inspect_packed
from src.data.listed import LIST_SUFFIXES
from src.data.sources import is_hidden, is_image_name, is_text, open_source, walk_class
from src.device import num_cores
from src.errors import ConfigError, DataError

_NUM_CLASSES = {"CIFAR10": 10, "CIFAR100": 100, "Flowers102": 102}
_SPLITS = ("train", "val")
_NAMED, _NAMED_COPIES = 20, 4
_RECORD = np.dtype([("digest", np.uint64, 2), ("width", np.int32), ("height", np.int32), ("is_read", np.bool_)])
_OTHER_FILES = "not images by their suffix, ignored"


class CheckConfig(schema.Section):
    """preprocess.py --check: decode every image and list what is wrong; nothing is written."""

    check: str = Field(description="folder of train and val, or of class folders; for other kinds as data_url")
    set: Literal["ImageNet", "folder", "list", "digits", "CIFAR10", "CIFAR100", "Flowers102"] = Field(
        "folder", description="kind of data set; ImageNet, folder and digits all mean folders of class folders"
    )
    num_classes: schema.or_none(schema.Count) = Field(
        None, description="list: outputs of the model that will see the labels"
    )
    num_parallel_workers: Annotated[int, Field(ge=0)] = Field(
        4, description="processes that decode (at most the CPU's cores); 0: the checking process"
    )
    val_fraction: schema.Rate = Field(
        0.0, description="share that training will hold out, where the folders or the list have no val"
    )
    details: bool = Field(False, description="name every file, not 20 of a kind")


@dataclass
class Report:
    """What was found, by kind; ``findings`` make the check fail, ``notes`` do not."""

    findings: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def find(self, kind: str, name: str) -> None:
        """Add one finding."""
        self.findings.setdefault(kind, []).append(name)

    def note(self, kind: str, name: str) -> None:
        """Add one note."""
        self.notes.setdefault(kind, []).append(name)


@dataclass(frozen=True)
class Split:
    """One split: its images, and what stands before their paths where they are named."""

    name: str
    prefix: str
    images: Source

    def shown(self, index: int) -> str:
        """Name of one image, on one line."""
        return shown(self.prefix + self.images.paths[index])


def check(config: CheckConfig, key: str = "--check") -> None:
    """Print a summary of every split and everything that is wrong with it. Nothing is written.

    Args:
        config: which data set.
        key: by which the user named it.

    Raises:
        DataError: there are findings, or there is no data set.
        ConfigError: a list without num_classes.
    """
    findings = look_through(config, key).findings
    if findings:
        count = sum(map(len, findings.values()))
        kinds = ", ".join(f"{len(names)} {kind}" for kind, names in findings.items())
        raise DataError(shown(config.check), f"{count} finding{'s' * (count > 1)}, listed above", kinds)


def look_through(config: CheckConfig, key: str = "--check") -> Report:
    """As `check`, for callers that go on with findings."""
    report = Report()
    splits = _open_splits(config, key, report)
    workers = min(config.num_parallel_workers, num_cores())
    records = []
    for split in splits:
        record_N, modes = _inspect(split, workers, report)
        records.append(record_N)
        _print_summary(split, record_N, modes)
    _compare_contents(splits, records, report)
    _print_report(report, None if config.details else _NAMED)
    if not report.findings:
        _print(f"{sum(map(len, records)):,} images, no findings")
    return report


def shown(text: str) -> str:
    """A name as it is, or quoted and escaped where it would not stay on its line."""
    return text if text.isprintable() else repr(text)


def encodable(line: str) -> str:
    """A line without letters that stdout cannot take: a terminal that cannot show a name must not end the command."""
    encoding = sys.stdout.encoding or "utf-8"
    return line.encode(encoding, "backslashreplace").decode(encoding)


# ---------------------------------------------------------------------------------------------------------------------
# Which images there are


def _open_splits(config: CheckConfig, key: str, report: Report) -> list[Split]:
    root = Path(config.check)
    is_list = config.set == "list"
    if not (root.is_dir() or (is_list and root.is_file())):
        raise DataError(key, "no such file or folder" if is_list else "no such folder", shown(config.check))
    if config.set in ("ImageNet", "folder", "digits"):
        with readable(root):
            return _open_folders(root, config.val_fraction, report)
    if is_list and config.num_classes is None:
        raise ConfigError("--num_classes", "must be given for a list")
    names, val_fraction = _SPLITS, config.val_fraction
    if is_list and not val_fraction and not any((root / f"val{suffix}").is_file() for suffix in LIST_SUFFIXES):
        names = ("train",)
    num_classes = config.num_classes or _NUM_CLASSES[config.set]
    sources = (open_source(config.set, config.check, name, num_classes, val_fraction=val_fraction) for name in names)
    return [Split(name, f"{name}: ", images) for name, images in zip(names, sources, strict=True)]


def _open_folders(root: Path, val_fraction: float, report: Report) -> list[Split]:
    names = [name for name in _SPLITS if (root / name).is_dir()]
    if not names:
        splits = [Split("images", "", list_folder(root, "", report))]
    else:
        for entry in sorted(os.listdir(root)):
            if entry not in names and not is_hidden(entry) and os.path.isdir(root / entry):
                report.note("folders beside train and val, ignored", shown(entry))
        splits = [Split(name, f"{name}/", list_folder(root / name, f"{name}/", report)) for name in names]
    if val_fraction and names in ([], ["train"]) and len(splits[0].images):
        whole = splits[0]
        # Both parts have all classes.
        return [Split(name, f"{name}: ", fixed_split(whole.images, name, val_fraction)) for name in _SPLITS]
    if len(splits) == 2:
        train, val = (split.images.class_names for split in splits)
        for name in sorted(set(val) - set(train)):
            report.find("classes of val that train lacks", shown(name))
        for name in sorted(set(train) - set(val)):
            report.find("classes of train that val lacks", shown(name))
    return splits


def list_folder(folder: Path, prefix: str, report: Report) -> ImageList:
    """The images that training would take; class folders without any are reported, and keep their label."""
    class_names, paths, labels = [], [], []
    for name in sorted(os.listdir(folder)):
        if is_hidden(name):
            continue
        if not _is_folder(folder / name, prefix + name, report):
            kind = "images beside the class folders, ignored" if is_image_name(name) else _OTHER_FILES
            report.note(kind, shown(prefix + name))
            continue
        if not is_text(name):
            report.find("class folders whose names are not UTF-8", shown(prefix + name))
        found = []
        for path in sorted(_files_below(folder, name, prefix, report)):
            if is_image_name(path):
                found.append(path)
            else:
                report.note(_OTHER_FILES, shown(prefix + path))
        if not found:
            report.find("class folders without images", shown(prefix + name))
        paths += found
        labels += [len(class_names)] * len(found)
        class_names.append(name)
    if len(class_names) < 2:
        report.find("folders of fewer than two classes", shown(prefix or str(folder)))
    return ImageList(folder, paths, labels, tuple(class_names))


def _files_below(folder: Path, name: str, prefix: str, report: Report) -> Iterator[str]:
    """Relative paths at any depth."""
    start = len(os.path.join(folder, ""))

    def lost(error: OSError) -> None:
        path = shown(prefix + os.fspath(error.filename)[start:])
        report.find("folders that cannot be read", f"{path}: {error.strerror}")

    for parent, folders, files in walk_class(folder, name, lost):
        for one in filter(is_image_name, folders):
            report.note("folders with the suffix of an image", shown(f"{prefix}{parent}/{one}"))
        yield from (f"{parent}/{one}" for one in files)


def _is_folder(path: Path, name: str, report: Report) -> bool:
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        # Training stops at it: a link that leads to itself may be meant as a class.
        report.find("folders that cannot be read", f"{shown(name)}: {error.strerror}")
        return False
    return os.path.isdir(path)


# ---------------------------------------------------------------------------------------------------------------------
# What is in them


def _inspect(split: Split, workers: int, report: Report) -> tuple[np.ndarray, Counter]:
    """A record of every image, and how many images there are of each mode."""
    images = split.images
    is_files = isinstance(images, ImageList)
    answers = inspect_files(_Files(images), workers) if is_files else inspect_packed(images)
    record_N = np.zeros(len(images), _RECORD)
    modes: Counter = Counter()
    told: list[tuple[int, Inspection]] = []
    is_quiet = not sys.stderr.isatty()
    for index, found in tqdm(answers, split.name, len(images), file=sys.stderr, disable=is_quiet, leave=False):
        if found.fault:
            told.append((index, found))
            continue
        digest_2 = np.frombuffer(found.digest, np.uint64, 2)
        record_N[index] = (digest_2, *found.size, True)
        modes[found.mode] += 1
        if found.notes:
            told.append((index, found))
    # Processes answer in any order.
    for index, found in sorted(told, key=lambda pair: pair[0]):
        name = split.shown(index)
        if found.fault:
            report.find(found.fault, f"{name}: {shown(found.detail)}" if found.detail else name)
        for kind, detail in found.notes:
            report.note(kind, f"{name}: {detail}")
    return record_N, modes


@dataclass(frozen=True)
class _Files(Sequence):
    """Paths of an `ImageList`'s files, made when they are asked for."""

    images: ImageList

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> str:
        return os.fspath(self.images.file(index))


def _compare_contents(splits: list[Split], records: list[np.ndarray], report: Report) -> None:
    """Report images of equal content; the digest is that of the file, or of the pixels where files hold many images."""
    record_M = np.concatenate(records)
    split_M = np.repeat(np.arange(len(splits)), [len(record_N) for record_N in records])
    row_M = np.concatenate([np.arange(len(record_N)) for record_N in records])
    read = np.flatnonzero(record_M["is_read"])
    digest_M2 = record_M["digest"][read]
    order = np.lexsort((digest_M2[:, 1], digest_M2[:, 0]))
    starts = np.flatnonzero((np.diff(digest_M2[order], axis=0, prepend=digest_M2[order][:1]) != 0).any(1))
    groups = [read[group] for group in np.split(order, starts) if len(group) > 1]
    for group in sorted(groups, key=lambda group: group[0]):
        places = [(splits[split_M[one]], int(row_M[one])) for one in group]
        names = [split.shown(row) for split, row in places[:_NAMED_COPIES]]
        more = f" and {len(places) - _NAMED_COPIES} more" if len(places) > _NAMED_COPIES else ""
        line = " = ".join(names) + more
        classes = {(split.name, split.images.labels[row]) for split, row in places}
        num_splits = len({name for name, _ in classes})
        if num_splits > 1:
            report.find("contents in both train and val", line)
        if len(classes) > num_splits:
            report.find("contents under different classes of a split", line)
        if len(classes) == 1:
            report.note("same content in one class", line)


# ---------------------------------------------------------------------------------------------------------------------
# What is printed


def _print_summary(split: Split, record_N: np.ndarray, modes: Counter) -> None:
    images = split.images
    count_K = np.bincount(np.asarray(images.labels, np.int64), minlength=len(images.class_names))
    line = f"{split.name}: {len(images):,} images in {len(count_K):,} classes"
    if len(count_K):
        least, most = (
            f"{count_K[k]:,} in {shown(images.class_names[k])}" for k in (count_K.argmin(), count_K.argmax())
        )
        line += f", smallest {least}, largest {most}"
    _print(line)
    record_N = record_N[record_N["is_read"]]
    if not len(record_N):
        return
    sides = []
    for word, side_N in (
        ("shorter", np.minimum(record_N["width"], record_N["height"])),
        ("longer", np.maximum(record_N["width"], record_N["height"])),
    ):
        sides.append(f"{word} {side_N.min()} / {np.median(side_N):.0f} / {side_N.max()}")
    _print(f"  sides in pixels, smallest / median / largest: {', '.join(sides)}")
    _print(f"  modes: {', '.join(f'{mode} {count:,}' for mode, count in modes.most_common())}")


def _print_report(report: Report, most: int | None) -> None:
    for word, kinds in (("note", report.notes), ("finding", report.findings)):
        for kind, names in kinds.items():
            suffixes = Counter(os.path.splitext(name)[1].lower() or "without suffix" for name in names)
            which = f" ({', '.join(f'{count:,} {shown(one)}' for one, count in suffixes.most_common(5))})"
            _print(f"{word}: {len(names):,} {kind}{which if kind == _OTHER_FILES else ''}")
            for name in names[:most]:
                _print(f"    {name}")
            if len(names) > len(names[:most]):
                _print(f"    and {len(names) - most:,} more, --details true names all")


def _print(line: str) -> None:
    print(encodable(line))
