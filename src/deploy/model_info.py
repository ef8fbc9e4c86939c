"""The description beside an exported model: what its user must do to images, and can know about it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from src import schema
from src.data.transforms import EvalTransform
from src.errors import ModelFileError
from src.files import sha256, write_text


class TransformInfo(BaseModel):
    """Resize, centre crop, normalise, in this order; `EvalTransform` carries them out.

    ``resize_size`` says what follows from the others, for readers in other languages.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    image_size: schema.Count
    crop_pct: Annotated[float, Field(gt=0, le=1)]
    interpolation: Literal["bicubic", "bilinear", "lanczos", "hamming"]
    resize_mode: Literal["shorter", "squash"]
    mean: tuple[float, float, float]
    std: tuple[schema.Positive, schema.Positive, schema.Positive]
    resize_size: int
    exif_orientation: bool = False

    @model_validator(mode="after")
    def _check_resize_size(self) -> TransformInfo:
        if self.resize_size != self.transform().resize_size:
            raise ValueError(f"resize_size {self.resize_size} does not follow from image_size and crop_pct")
        return self

    @classmethod
    def of(cls, transform: EvalTransform, exif_orientation: bool = False) -> TransformInfo:
        """The description of a transform, and of whether images are turned first as their cameras say."""
        return cls(**transform.as_dict(), resize_size=transform.resize_size, exif_orientation=exif_orientation)

    def transform(self) -> EvalTransform:
        """The transform that is described."""
        return EvalTransform(**self.model_dump(exclude={"resize_size", "exif_orientation"}))


class InputInfo(BaseModel):
    """The one input of the network; a first axis of None takes any number of images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    shape: tuple[schema.Count | None, schema.Count, schema.Count, schema.Count]
    dtype: Literal["float32"]


class ModelInfo(BaseModel):
    """What lies beside an exported file."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    arch: str
    file: str
    bytes: int
    sha256: str
    file_format: Literal["MINDIR", "AIR", "ONNX"]
    ir_version: int | None
    # How the weights are stored; none: as float32.
    quantization: Literal["none", "int8"] = "none"
    num_classes: int
    class_names: list[str] | None
    input: InputInfo
    transform: TransformInfo
    source: str
    source_sha256: str
    versions: dict[str, str]
    config: dict[str, Any]

    @model_validator(mode="after")
    def _check_shape(self) -> ModelInfo:
        if self.input.shape[2:] != (self.transform.image_size,) * 2:
            raise ValueError(f"input of {self.input.shape[2:]} pixels, but images of {self.transform.image_size}")
        return self


def info_path(model_file: Path) -> Path:
    """Where the description lies: ``NAME.json`` of ``NAME.mindir``, ``NAME.onnx.json`` of ``NAME.onnx``."""
    return model_file.with_suffix(".json" if model_file.suffix == ".mindir" else f"{model_file.suffix}.json")


def write_model_info(model_file: Path, info: ModelInfo) -> None:
    """Write the description atomically."""
    write_text(info_path(model_file), info.model_dump_json(indent=1) + "\n")


def read_model_info(path: Path) -> ModelInfo:
    """Read a description.

    Raises:
        ModelFileError: missing, or not such a file.
    """
    try:
        return ModelInfo.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelFileError(path, "no such file, export.py writes it beside the model") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(path, f"cannot be read: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise ModelFileError(path, f"is not the description of an exported model: {where}: {first['msg']}") from None


def version_1_of(model_file: Path, info: ModelInfo) -> Path:
    """The MINDIR of IR version 1 with the same weights: this one, or one in its folder, at best ``NAME_v1.mindir``.

    Raises:
        ModelFileError: there is none.
    """
    if info.ir_version == 1:
        return model_file
    found = [path for path in sorted(model_file.parent.glob("*.mindir")) if _is_version_1_of(path, info)]
    if not found:
        export = f"export.py --ir_version 1 --file_name {model_file.stem}_v1 writes it"
        raise ModelFileError(model_file, f"has no MINDIR of IR version 1 with its weights beside it, {export}")
    return min(found, key=lambda path: path.stem != f"{model_file.stem}_v1")


def _is_version_1_of(path: Path, info: ModelInfo) -> bool:
    try:
        other = read_model_info(info_path(path))
    except ModelFileError:
        return False
    wanted = (1, info.source_sha256, info.quantization)
    return (other.ir_version, other.source_sha256, other.quantization) == wanted


def verified_model_info(model_file: Path) -> ModelInfo:
    """The description of an exported file whose bytes are the ones described.

    Raises:
        ModelFileError: either file is missing, or the model is damaged.
    """
    if not model_file.is_file():
        raise ModelFileError(model_file, "no such file")
    info = read_model_info(info_path(model_file))
    if (info.bytes, info.sha256) != (model_file.stat().st_size, sha256(model_file)):
        raise ModelFileError(model_file, f"is damaged: its content is not what {info_path(model_file).name} says")
    return info
