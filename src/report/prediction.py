"""What predict.py does: the most probable classes of images as a table, CSV, JSON, and pictures of the attention.

Shape letters: B batch, C image channels, Y X rows and columns, K classes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from src.data.check import encodable, shown
from src.data.image_source import ImageList
from src.data.loader import EvalBatches, open_reader, read_eval
from src.errors import DataError
from src.files import replacing, write_json, write_text
from src.report.overlay import overlay
from src.report.photos import Photos, find_photos, names_below
from src.report.predict_settings import PredictConfig, Request
from src.report.predictors import Predictor, open_predictor

# Fewer images are read sooner than processes for it start.
_WORTH_WORKERS = 100
_WIDEST = 60
_LONGEST_NAME = 180


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, as indices, and their probabilities, the largest first."""

    image: str
    classes: tuple[int, ...]
    probabilities: tuple[float, ...]

    @classmethod
    def of(cls, image: str, probability_K: np.ndarray, top_k: int) -> Prediction:
        """Among equal probabilities the lower index is first."""
        order = np.argsort(-probability_K, kind="stable")[:top_k]
        return cls(image, tuple(map(int, order)), tuple(map(float, probability_K[order])))


def predict(request: Request) -> list[Prediction]:
    """Print and write what the command line asks for. Images that cannot be read are named and left out.

    Raises:
        DataError: none can be read, or with ``strict`` one cannot.
        ModelFileError: as `open_predictor`.
        NumbersError: logits that are not finite.
    """
    config, settings = request.config, request.settings
    photos = find_photos(request.words)
    predictions: list[Prediction] = []
    predictor = open_predictor(config, settings) if photos.paths else None
    if predictor is not None:
        table = Table(photos.paths, predictor.class_names)
        workers = config.data.num_parallel_workers if len(photos.paths) >= _WORTH_WORKERS else 0
        for prediction in _predictions(predictor, photos, settings, config.data.batch_size, workers):
            predictions.append(prediction)
            table.print(prediction)
        if settings.csv_file is not None:
            write_text(Path(settings.csv_file), _as_csv(predictions, photos, predictor.class_names, settings.top_k))
        if settings.json_file is not None:
            write_json(Path(settings.json_file), _as_tree(predictions, photos, predictor, settings.tta))
    _tell_faults(photos.faults, is_fatal=settings.strict or not predictions)
    return predictions


def _predictions(
    predictor: Predictor, photos: Photos, settings: PredictConfig, batch_size: int, workers: int
) -> Iterator[Prediction]:
    """Predictions of what can be read, in order; the rest becomes a fault. Pictures of the attention are written."""
    count = len(photos.paths)
    source = ImageList(Path(), photos.paths, [0] * count, predictor.class_names, predictor.exif_orientation)
    batches = EvalBatches(source, predictor.transform, min(batch_size, count), on_bad_image="skip")
    names = names_below(photos.paths) if settings.attention is not None else []
    is_quiet = not sys.stderr.isatty()
    with (
        open_reader(workers, val=batches) as reader,
        tqdm(total=count, desc="predict", file=sys.stderr, disable=is_quiet, leave=False) as bar,
    ):
        for step, batch in enumerate(read_eval(reader)):
            first = step * batches.batch_size
            probability_BK = predictor.probabilities(batch.image_BCYX, settings.tta)
            maps = predictor.attention(batch.image_BCYX, settings.attention_inner) if names else {}
            for row in range(min(batches.batch_size, count - first)):
                bar.update()
                path = photos.paths[first + row]
                if batch.is_padding_B[row]:
                    photos.faults[path] = _reason(source, first + row)
                    continue
                for name, map_BYX in maps.items():
                    target = picture_path(Path(settings.attention), names[first + row], name)
                    picture = overlay(batch.image_BCYX[row], predictor.transform, map_BYX[row])
                    with replacing(target) as temporary:
                        picture.save(temporary)
                yield Prediction.of(path, probability_BK[row], settings.top_k)


def picture_path(folder: Path, name: str, map_name: str) -> Path:
    """Where the picture of an image's attention lies: ``FOLDER/cat/1.jpg.vit_rollout.png`` of ``cat/1.jpg``."""
    parent, last = os.path.split(name)
    encoded = os.fsencode(last)
    if len(encoded) > _LONGEST_NAME:
        # File systems take 255 bytes, our suffix and a temporary name's beginning among them.
        last = f"{os.fsdecode(encoded[: _LONGEST_NAME - 9])}~{hashlib.sha256(encoded).hexdigest()[:8]}"
    return folder / parent / f"{last}.{map_name}.png"


def _reason(source: ImageList, index: int) -> str:
    """Why an image cannot be read."""
    try:
        source.read(index)
    except DataError as error:
        # As `fault` writes it.
        return error.lines[0].removeprefix(" ".join(f"{source.file(index)}: ".split("\n")))
    return "could not be read"


def _tell_faults(faults: dict[str, str], is_fatal: bool) -> None:
    """Name every image that is left out, as warnings; a single one that ends the command as the error itself."""
    lines = [(shown(name), shown(reason)) for name, reason in faults.items()]
    if is_fatal and len(lines) == 1:
        raise DataError(*lines[0])
    for name, reason in lines:
        print(encodable(f"warning: left out: {name}: {reason}"), file=sys.stderr)
    if is_fatal and lines:
        raise DataError("images", f"{len(lines)} cannot be read, named above")


# ---------------------------------------------------------------------------------------------------------------------
# Forms of the result


class Table:
    """A line on the terminal for each class of an image, the first one with the image's name.

    Args:
        paths: of all images.
        class_names: in the order of the logits.
    """

    def __init__(self, paths: list[str], class_names: tuple[str, ...]):
        self.class_names = tuple(map(shown, class_names))
        names = ["image", *map(shown, paths)]
        self.name_width, self.class_width = (
            min(_WIDEST, max(map(len, words))) for words in (names, ["class", *self.class_names])
        )
        self._is_begun = False

    def print(self, prediction: Prediction) -> None:
        """Print one image's lines, above the bar where there is one."""
        if not self._is_begun:
            self._print_line("image", "class", "probability")
        self._is_begun = True
        name = shown(prediction.image)
        for index, probability in zip(prediction.classes, prediction.probabilities, strict=True):
            self._print_line(name, self.class_names[index], f"{probability:.2%}")
            name = ""

    def _print_line(self, image: str, class_name: str, probability: str) -> None:
        line = f"{image:<{self.name_width}}  {class_name:<{self.class_width}}  {probability:>11}"
        tqdm.write(encodable(line), file=sys.stdout)


def _as_csv(predictions: list[Prediction], photos: Photos, class_names: tuple[str, ...], top_k: int) -> str:
    """One row an image: its name, class and probability in turns, and what is wrong with it."""
    places = range(1, min(top_k, len(class_names)) + 1)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", *(f"{word}_{place}" for place in places for word in ("class", "probability")), "fault"])
    for one in predictions:
        pairs = zip(one.classes, one.probabilities, strict=True)
        cells = [cell for index, probability in pairs for cell in (class_names[index], probability)]
        writer.writerow([_text(one.image), *cells, ""])
    for name, reason in photos.faults.items():
        writer.writerow([_text(name), *[""] * (2 * len(places)), _text(reason)])
    return text.getvalue()


def _as_tree(predictions: list[Prediction], photos: Photos, predictor: Predictor, tta: str) -> dict:
    """The same for JSON, with what it was made by."""
    images = []
    for one in predictions:
        pairs = zip(one.classes, one.probabilities, strict=True)
        top = [{"class": predictor.class_names[k], "index": k, "probability": probability} for k, probability in pairs]
        images.append({"image": _text(one.image), "top": top})
    faults = [{"image": _text(name), "fault": _text(reason)} for name, reason in photos.faults.items()]
    made_by = {"arch": predictor.arch, "file": _text(str(predictor.file)), "tta": tta}
    return {**made_by, "images": images, "faults": faults}


def _text(name: str) -> str:
    r"""A file's name as text; bytes of it that are none become ``\xff`` and the like."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
