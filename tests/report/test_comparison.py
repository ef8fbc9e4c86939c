"""Several sets of weights on the same images."""

from pathlib import Path

import pytest

from src.errors import DataError
from src.report.comparison import comparison_lines, config_for
from tests import small_run
from tests.report.evaluations import answers, evaluation, write_checkpoint


def test_each_against_the_first():
    first = evaluation(answers([0, 1, 2, 0], [0, 1, 2, 1]), weights=Path("a.ckpt"))
    other = evaluation(answers([0, 1, 2, 0], [1, 0, 2, 0]), weights=Path("other.ckpt"))
    lines = comparison_lines([first, other])
    assert lines[:3] == [
        "weights     arch            images    top-1      95 % interval    top-5     loss  gained   lost        p",
        "a.ckpt      cct_7_3x1_32         4   75.00%    30.06% - 95.44%  100.00%   0.2500",
        "other.ckpt  cct_7_3x1_32         4   50.00%    15.00% - 85.00%  100.00%   0.2500       1      2        1",
    ]
    assert lines[3].startswith("(gained, lost: images that it has right and the first has wrong")


def test_other_images_are_not_compared():
    whole, part = (evaluation(answers([0, 1, 2], [0, 1, 2])[:count]) for count in (3, 2))
    with pytest.raises(DataError, match="images were left out for one of the weights"):
        comparison_lines([whole, part])


def test_a_checkpoint_of_ours_brings_its_network_and_how_it_sees_images():
    path = write_checkpoint(Path("run/best.ckpt"), Path("data"), embed_dim=24, crop_pct=0.8, mean="0.1,0.2,0.3")
    config = small_run.config(Path("data"), Path("out"), batch_size=2, use_ema=True, pretrained="other.ckpt")
    found = config_for(config, str(path))
    assert (found.model.embed_dim, found.model.compat, found.model.pretrained) == (24, "official", str(path))
    assert (found.data.crop_pct, found.data.mean) == (0.8, (0.1, 0.2, 0.3))
    # What belongs to the evaluation stays.
    assert (found.data.batch_size, found.model.use_ema, found.checkpoint.output_dir) == (2, True, "out")


def test_other_files_are_of_the_network_that_the_configuration_names():
    path = small_run.write_weights(Path("foreign.ckpt"))
    config = small_run.config(Path("data"), Path("out"))
    found = config_for(config, str(path))
    assert found.model == config.model.model_copy(update={"pretrained": str(path)})
    assert found.data == config.data
