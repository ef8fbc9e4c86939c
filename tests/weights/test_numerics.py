"""The numerics of a set of weights are taken from the weights unless the user names others."""

from pathlib import Path

import pytest

from src.schema import ModelConfig
from src.weights.numerics import with_numerics
from src.weights.write import write_ckpt
from tests.networks import TINY, tiny, values
from tests.weights import published


def model(**keys: object) -> ModelConfig:
    arch, sizes = TINY["cct"]
    return ModelConfig(arch=arch, **sizes, **keys)


@pytest.fixture
def weights(tmp_path, request) -> Path:
    arrays = values(tiny("cct"))
    write_ckpt(tmp_path / "net.ckpt", published.zoo(arrays) if request.param == "zoo" else arrays)
    return tmp_path / "net.ckpt"


@pytest.mark.parametrize(("weights", "compat"), [("zoo", "zoo"), ("ours", "official")], indirect=["weights"])
def test_names_tell_the_numerics(weights, compat, capsys):
    assert with_numerics(model(), weights) == model(compat=compat)
    said = f"=> compat zoo: the numerics that '{weights}' was trained with\n"
    assert capsys.readouterr().out == (said if compat == "zoo" else "")


@pytest.mark.parametrize("weights", ["zoo"], indirect=True)
def test_the_users_word_counts(weights, capsys):
    assert with_numerics(model(compat="official"), weights).compat == "official"
    assert capsys.readouterr().out == ""


def test_without_weights_the_authors():
    assert with_numerics(model(), None).compat == "official"
