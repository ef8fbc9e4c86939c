"""Eight-bit weights after training: done to an ONNX file, or prepared for MindSpore Lite's converter."""

from __future__ import annotations

import logging
from pathlib import Path

from src.data.image_source import IMAGE_SUFFIXES
from src.deploy.model_info import ModelInfo, TransformInfo
from src.device import check_installation
from src.errors import DataError
from src.files import write_text

# The converter's documentation asks for 100 to 500 images.
_MOST_IMAGES = 500
_RESIZE_METHODS = {"bilinear": "LINEAR", "hamming": "LINEAR", "bicubic": "CUBIC", "lanczos": "CUBIC"}


def quantize_onnx(path: Path) -> None:
    """Give every affine map of an ONNX file int8 weights, one scale per output, and quantise its input as it runs.

    Standard ONNX operators (DynamicQuantizeLinear, MatMulInteger); no images are needed. Products of two activations
    and convolutions stay float32.

    Args:
        path: float32 file; it is written anew.

    Raises:
        UserError: the package onnx or onnxruntime is missing.
    """
    check_installation(("onnx", "onnxruntime"))
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # It asks on every call for a preparation that finds nothing to do in these graphs.
    logging.disable(logging.WARNING)
    try:
        # With all 8 bits sums overflow on x86 processors without VNNI: a range of 7 bits is left in use.
        kind = dict(weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
        quantize_dynamic(path, path, op_types_to_quantize=["MatMul"], **kind)
    finally:
        logging.disable(logging.NOTSET)


def converter_config_path(model_file: Path) -> Path:
    """Where the converter's configuration lies: ``NAME.quant.cfg`` of ``NAME.mindir``."""
    return model_file.with_suffix(".quant.cfg")


def write_converter_config(model_file: Path, info: ModelInfo, images: Path) -> str:
    """Write the configuration with which MindSpore Lite's converter quantises an exported MINDIR; returns its command.

    Keys and values follow the documentation of MindSpore Lite 2.10; the converter was not run.

    Args:
        model_file: exported MINDIR.
        info: its description.
        images: folder of images, without subfolders, that show which values activations take.

    Raises:
        DataError: the folder holds no images.
    """
    count = min(len(calibration_images(images)), _MOST_IMAGES)
    target = converter_config_path(model_file)
    write_text(target, _converter_config(info.input.name, info.transform, images.resolve(), count))
    words = [
        "converter_lite",
        "--fmk=MINDIR",
        f"--modelFile={model_file}",
        f"--outputFile={model_file.with_name(f'{model_file.stem}_int8')}",
        f"--configFile={target}",
        # Without it the converted model takes its images with the channels last.
        "--inputDataFormat=NCHW",
    ]
    first, *sides = info.input.shape
    if first is None:
        words.append(f"--inputShape={info.input.name}:1,{','.join(map(str, sides))}")
    return " ".join(words)


def calibration_images(folder: Path) -> list[Path]:
    """The images that lie directly in a folder.

    Raises:
        DataError: there are none.
    """
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not found:
        raise DataError("calibrate_path", "must be a folder of 100 to 500 images, without subfolders", folder)
    return found


def _converter_config(name: str, transform: TransformInfo, images: Path, count: int) -> str:
    """The file's text. The converter normalises pixels in [0, 255], the description in [0, 1]."""
    mean, std = ([round(255 * value, 4) for value in values] for values in (transform.mean, transform.std))
    return f"""\
[common_quant_param]
quant_type=FULL_QUANT
bit_num=8

[data_preprocess_param]
calibrate_path={name}:{images}
calibrate_size={count}
input_type=IMAGE
image_to_format=RGB
normalize_mean={mean}
normalize_std={std}
# The converter knows no resize that keeps the aspect.
resize_width={transform.resize_size}
resize_height={transform.resize_size}
resize_method={_RESIZE_METHODS[transform.interpolation]}
center_crop_width={transform.image_size}
center_crop_height={transform.image_size}

[full_quant_param]
activation_quant_method=MAX_MIN
bias_correction=true
per_channel=true
"""
