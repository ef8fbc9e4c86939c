"""The C++ runner as a backend: built when it is needed, fed with files, its results read.

Shape letters: B batch.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np

from src.deploy.backends import Answers
from src.deploy.model_info import ModelInfo
from src.deploy.results import read_logits
from src.errors import ConfigError, DataError, ModelFileError, NumbersError, UserError

PROJECT = Path(__file__).parents[2] / "ascend310_infer"
_ERRORS = {error.exit_code: error for error in (ConfigError, DataError, ModelFileError, NumbersError)}


class CppRunner:
    """The runner on the CPU, over images that are written into a folder first.

    Args:
        model: MINDIR of IR version 1.
        info: its description.
        threads: that compute one call.
        folder: an empty one, for images and results.

    Raises:
        UserError: the runner is not built and cannot be.
    """

    def __init__(self, model: Path, info: ModelInfo, threads: int, folder: Path):
        self._model, self._info, self._threads, self._folder = model, info, threads, folder
        self._images: list[str] = []
        self._batch = 0
        self._binary = built_runner(PROJECT)
        (folder / "images").mkdir()

    def reserve(self, count: int, image_bytes: int) -> None:
        """See that there is space for so many images.

        Raises:
            UserError: there is not.
        """
        needed, free = count * image_bytes, shutil.disk_usage(self._folder).free
        if needed > free:
            rule = f"{count} images take {needed / 2**30:.1f} GiB, choose a smaller --num_images or another TMPDIR"
            raise UserError(self._folder, rule, f"{free / 2**30:.1f} GiB free")

    def add(self, image_BCYX: np.ndarray, count: int) -> None:
        """Write the first ``count`` images of a batch."""
        self._batch = len(image_BCYX)
        for image_CYX in image_BCYX[:count]:
            name = f"{len(self._images):08d}.bin"
            image_CYX.tofile(self._folder / "images" / name)
            self._images.append(name)

    def answers(self) -> Answers:
        """Run it over all images.

        Raises:
            UserError: of the class that its exit code stands for, with the line that it says.
        """
        command = [self._binary, "--mindir_path", self._model.resolve(), "--input0_path", "images"]
        command += ["--device_target", "CPU", "--threads", str(self._threads)]
        if self._info.input.shape[0] is None:
            command += ["--batch", str(self._batch)]
        ran = subprocess.run(command, cwd=self._folder, capture_output=True, text=True)
        if ran.returncode:
            raise _ERRORS.get(ran.returncode, UserError)("C++ runner", _reason(ran))
        times = (self._folder / "time_Result" / "test_perform_static.txt").read_text(encoding="utf-8")
        median = float(re.search(r"^p50: (\S+) ms$", times, re.MULTILINE)[1])
        return Answers(read_logits(self._folder / "result_Files", self._images), median, self._info.quantization)


def built_runner(project: Path) -> Path:
    """The runner's binary, built unless it is newer than its sources.

    Args:
        project: folder of ``build.sh`` and ``src``.

    Raises:
        UserError: MindSpore Lite or a tool is missing, or the build fails.
    """
    binary, script = project / "out" / "main", project / "build.sh"
    sources = [script, project / "CMakeLists.txt", *(project / "src").iterdir()]
    if binary.is_file() and binary.stat().st_mtime_ns > max(path.stat().st_mtime_ns for path in sources):
        return binary
    print("=> building the C++ runner")
    built = subprocess.run(["bash", script], capture_output=True, text=True)
    if built.returncode:
        raise _ERRORS.get(built.returncode, UserError)("C++ runner", f"cannot be built: {_reason(built)}")
    return binary


def _reason(ran: subprocess.CompletedProcess) -> str:
    """What a program says about its failure: its line of error, else its last line."""
    if ran.returncode < 0:
        return f"ended by signal {-ran.returncode}"
    lines = [line for line in (ran.stdout + "\n" + ran.stderr).splitlines() if line.strip()]
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (said or lines or [f"exit code {ran.returncode}"])[-1]
