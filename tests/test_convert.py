"""convert.py: any file of any naming into any other, to the bit; what is refused leaves everything as it was."""

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from src.files import sha256
from src.models import MODELS, build_model
from src.schema import ModelConfig
from src.weights.convert_settings import read_command_line
from src.weights.load import load_weights
from src.weights.manifest import Manifest, write_manifest
from src.weights.read import read_tensors
from src.weights.write import write_ckpt
from tests import recipe
from tests.command import command
from tests.networks import FAMILIES, TINY, official_shapes, tiny, values
from tests.oracles import ORACLES, requires_oracles
from tests.weights import published
from tests.weights.published import Arrays

ARCH = "cct_2_3x2_32"


def convert(*words: object) -> tuple[int, list[str], list[str]]:
    """Run the script; its exit code and its lines on stdout and stderr."""
    return command("convert", *words)


def done(*words: object) -> list[str]:
    """Run the script, which must succeed; its lines."""
    code, lines, faults = convert(*words)
    assert (code, faults) == (0, [])
    return lines


def small(**changed: object) -> Arrays:
    """Weights of the smallest arch by the authors' names."""
    return recipe.weights(official_shapes(build_model(ARCH, **changed)), "unit")


def assert_same(path: str, arrays: Arrays) -> None:
    found = read_tensors(Path(path))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == np.float32
        assert np.array_equal(found[name], array), name


# ---------------------------------------------------------------------------------------------------------------------
# Round trips


def test_round_trips_are_equal_to_the_bit():
    arrays = small()
    save_file(arrays, "a.safetensors")
    flags = ("--arch", ARCH)
    first, last = done("--from", "a.safetensors", "--to", "b.ckpt", *flags)
    assert first == "weights of a.safetensors (naming: official): loaded 31, renamed 10"
    size = Path("b.ckpt").stat().st_size / 2**20
    form = f"{ARCH}, compat official, 10 classes, 32 x 32"
    assert last == f"=> wrote b.ckpt (names: ours, 31 tensors, {size:.1f} MiB; {form})"
    done("--from", "b.ckpt", "--to", "c.ckpt", "--names", "zoo", *flags)
    assert_same("c.ckpt", published.zoo(arrays))
    done("--from", "c.ckpt", "--to", "d.safetensors", *flags)
    assert_same("d.safetensors", arrays)
    done("--from", "d.safetensors", "--to", "e.ckpt", *flags)
    assert Path("e.ckpt").read_bytes() == Path("b.ckpt").read_bytes()
    done("--from", "e.ckpt", "--to", "f.safetensors", "--names", "ours", *flags)
    assert set(load_file("f.safetensors")) == set(read_tensors(Path("b.ckpt")))
    with safe_open("d.safetensors", "np") as file:
        # Hugging Face's loader refuses files without it.
        assert file.metadata() == {"format": "pt"}


def write_run(path: str, model: ModelConfig, tensors: Arrays) -> Path:
    """A checkpoint as a run leaves it, with the .json beside it."""
    checkpoint = Path(path)
    write_ckpt(checkpoint, tensors)
    numbers = dict(epoch=1, step=1, steps_per_epoch=1, metrics={}, class_names=[], shapes={}, versions={})
    content = dict(file=path, bytes=checkpoint.stat().st_size, sha256=sha256(checkpoint), arch=model.arch)
    write_manifest(checkpoint, Manifest(**content, **numbers, config=model.model_dump(mode="json")))
    return checkpoint


def tiny_config(family: str, **changed: object) -> ModelConfig:
    """What a run of the smallest network of a family has for its model."""
    arch, sizes = TINY[family]
    keys = {"num_heads": "stage_heads"} if isinstance(sizes["num_heads"], tuple) else {}
    return ModelConfig(arch=arch, **{keys.get(key, key): value for key, value in sizes.items()}, **changed)


def tiny_run(path: str, family: str, **changed: object) -> Arrays:
    """A run's checkpoint of such a network; returns its weights by the authors' names."""
    net = tiny(family, **changed)
    arrays = recipe.weights(official_shapes(net), "unit")
    load_weights(net, arrays)
    state = {"moment1.head.weight": np.ones(3, np.float32), "global_step": np.array(7)}
    write_run(path, tiny_config(family, **changed), {**values(net), **state})
    return arrays


@pytest.mark.parametrize("family", FAMILIES)
def test_checkpoints_of_ours_say_what_they_are(family):
    arrays = tiny_run("run.ckpt", family)
    first, last = done("--from", "run.ckpt", "--to", "theirs.safetensors")
    assert first.endswith(f"loaded {len(arrays)}, left over 2 of the training state")
    assert f"{TINY[family][0]}, compat official, 10 classes, 16 x 16" in last
    assert_same("theirs.safetensors", arrays)


def test_fine_tuned_files_convert_at_their_own_size():
    arrays = small(num_classes=3, image_size=48, in_channels=1)
    save_file(arrays, "a.safetensors")
    (_, last) = done("--from", "a.safetensors", "--arch", ARCH, "--to", "b.ckpt")
    assert "3 classes, 48 x 48" in last
    done("--from", "b.ckpt", "--arch", ARCH, "--to", "c.safetensors")
    assert_same("c.safetensors", arrays)


def test_another_image_size_resamples():
    save_file(small(), "a.safetensors")
    first, last = done("--from", "a.safetensors", "--arch", ARCH, "--image_size", 64, "--to", "b.ckpt")
    assert "resampled 1 (classifier.positional_emb (1, 64, 128) to (1, 256, 128), bilinear)" in first
    assert "64 x 64" in last
    assert read_tensors(Path("b.ckpt"))["classifier.positional_emb"].shape == (1, 256, 128)


def test_the_mean_of_several():
    arrays = small()
    for number in (1, 2, 3):
        save_file({name: array * number for name, array in arrays.items()}, f"{number}.safetensors")
    names = ["1.safetensors", "2.safetensors", "3.safetensors"]
    first, _ = done("--from", *names, "--arch", ARCH, "--to", "mean.safetensors")
    assert first.startswith(f"weights of the mean of 3 files ({', '.join(names)}) (naming: official): loaded 31")
    expected = {name: ((1 + 2 + 3) * array.astype(np.float64) / 3).astype(np.float32) for name, array in arrays.items()}
    found = load_file("mean.safetensors")
    assert all(np.abs(found[name] - array).max() < 1e-6 for name, array in expected.items())


def test_details():
    save_file(small(), "a.safetensors")
    lines = done("--from", "a.safetensors", "--arch", ARCH, "--to", "b.ckpt", "--details")
    assert "loaded: 31" in lines
    assert "  classifier.fc.bias" in lines


# ---------------------------------------------------------------------------------------------------------------------
# Which model


def test_an_arch_that_alone_fits_is_found():
    arrays = recipe.weights(official_shapes(build_model("vit_testing", num_classes=5, image_size=32)), "unit")
    save_file(arrays, "a.safetensors")
    _, last = done("--from", "a.safetensors", "--to", "b.ckpt")
    assert "vit_testing, compat official, 5 classes, 32 x 32" in last


def test_archs_that_fit_alike_are_named():
    save_file(published.zoo(small(num_classes=3)), "a.safetensors")
    code, _, (fault,) = convert("--from", "a.safetensors", "--to", "b.ckpt")
    assert code == 2
    words = "must be given, the weights of a.safetensors fit several models"
    assert fault == f"error: --arch: {words}. Known: cct_2_3x2_32, cct_2_3x2_32_sine"
    assert not Path("b.ckpt").exists()


def test_weights_of_no_model():
    save_file(
        {"conv1.weight": np.ones((64, 3, 7, 7), np.float32), "bn1.weight": np.ones(64, np.float32)}, "a.safetensors"
    )
    code, _, (fault,) = convert("--from", "a.safetensors", "--to", "b.ckpt")
    assert (code, fault) == (2, "error: --arch: must be given, no model fits the weights of a.safetensors as it is")


def test_names_of_the_zoo_choose_its_numerics():
    arrays = small()
    save_file(published.zoo(arrays), "a.safetensors")
    _, last = done("--from", "a.safetensors", "--arch", ARCH, "--to", "b.ckpt")
    assert "compat zoo" in last
    _, last = done("--from", "a.safetensors", "--arch", ARCH, "--to", "b.ckpt", "--compat", "official")
    assert "compat official" in last


def test_what_the_zoo_has_no_place_for():
    arrays = tiny_run("lean.ckpt", "tnt", compat="zoo")
    _, last = done("--from", "lean.ckpt", "--to", "zoo.ckpt", "--names", "zoo")
    assert "compat zoo" in last
    assert_same("zoo.ckpt", published.zoo_tnt(arrays))
    tiny_run("full.ckpt", "tnt")
    code, _, (fault,) = convert("--from", "full.ckpt", "--to", "b.ckpt", "--names", "zoo")
    assert code == 2
    assert fault.startswith("error: names: the model zoo's tnt_s_patch16_224 has no place for pixel_embed.proj.bias")
    tiny_run("deit3.ckpt", "deit3")
    code, _, (fault,) = convert("--from", "deit3.ckpt", "--to", "b.ckpt", "--names", "zoo")
    assert code == 2
    assert fault.startswith("error: names: the model zoo has no model like deit3_small_patch16_224. Received: zoo")
    assert not Path("b.ckpt").exists()


def test_zoo_names_are_those_of_the_family():
    for family, form in (("vit", published.zoo_vit), ("deit", published.zoo), ("pcpvt", published.zoo)):
        arrays = tiny_run(f"{family}.ckpt", family)
        done("--from", f"{family}.ckpt", "--to", "zoo.ckpt", "--names", "zoo")
        assert_same("zoo.ckpt", form(arrays))


# ---------------------------------------------------------------------------------------------------------------------
# What is refused


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ([], "--from: must name the weight files to read"),
        (["--to", "b.ckpt"], "--from: must name"),
        (["--from", "a.safetensors"], "--to: must name the file to write"),
        (
            ["--from", "a.safetensors", "--to", "b.pth"],
            "--to: unknown kind of weight file. Received: b.pth. Known: .ckpt",
        ),
        (["--from", "a.safetensors", "--to", "a.safetensors"], "--to: is one of the files to read"),
        (["--from", "a.safetensors", "--to", "./x/../a.safetensors"], "--to: is one of the files to read"),
        (["--from", "a.safetensors", "--to", "b.ckpt", "--arch", "cct_2"], "arch: no such model"),
        (["--from", "a.safetensors", "--to", "b.ckpt", "--names", "torch"], "--names: not one of the choices"),
        (["--list", "resnet50"], "arch: no model has such a name. Received: resnet50"),
        (["--list", "vit", "cct"], "--list: takes one pattern at most"),
        (["--list", "vit", "--from", "a.safetensors"], "--list: takes one pattern at most"),
    ],
)
def test_usage(words, rule):
    save_file(small(), "a.safetensors")
    Path("x").mkdir()
    before = Path("a.safetensors").read_bytes()
    code, _, faults = convert(*words)
    assert code == 2
    assert faults[0].startswith(f"error: {rule}")
    assert Path("a.safetensors").read_bytes() == before
    assert sorted(path.name for path in Path().iterdir()) == ["a.safetensors", "x"]


def test_words_of_the_command_line():
    request = read_command_line(["--from", "a", "b", "-a", "ViT-B_16", "--to", "c.ckpt", "--from=d"])
    assert (request.sources, request.pattern) == ([Path("a"), Path("b"), Path("d")], None)
    assert (request.config.arch, request.config.to, request.config.names) == ("ViT-B_16", "c.ckpt", None)
    assert read_command_line(["--list"]).pattern == "*"
    assert read_command_line(["--list", "deit3_*"]).pattern == "deit3_*"


@pytest.mark.parametrize("source", ["absent.ckpt", "short.safetensors", "other.safetensors"])
def test_a_failed_run_leaves_the_old_file(source):
    arrays = small()
    save_file({name: array for name, array in arrays.items() if "fc" not in name}, "short.safetensors")
    save_file({"x": np.ones(3, np.float32)}, "other.safetensors")
    Path("b.ckpt").write_bytes(b"what stood here")
    code, lines, (fault,) = convert("--from", source, "--arch", ARCH, "--to", "b.ckpt")
    assert (code, lines) == (4, [])
    assert fault.startswith(f"error: {source}: ")
    assert Path("b.ckpt").read_bytes() == b"what stood here"
    assert not list(Path().glob(".partial-*"))


def test_a_checkpoint_of_a_run_is_not_replaced():
    save_file(small(), "a.safetensors")
    write_run("best.ckpt", ModelConfig(arch=ARCH), small())
    before = Path("best.ckpt").read_bytes()
    code, _, (fault,) = convert("--from", "a.safetensors", "--arch", ARCH, "--to", "best.ckpt")
    assert code == 2
    assert "is a checkpoint of a run" in fault
    assert Path("best.ckpt").read_bytes() == before


def test_a_damaged_checkpoint_of_ours():
    write_run("best.ckpt", ModelConfig(arch=ARCH), small())
    Path("best.ckpt").write_bytes(Path("best.ckpt").read_bytes()[:-1])
    code, _, (fault,) = convert("--from", "best.ckpt", "--to", "a.ckpt")
    assert code == 4
    assert "is damaged" in fault


# ---------------------------------------------------------------------------------------------------------------------
# Files of others, and the list


@requires_oracles
@pytest.mark.parametrize("name", ["weights.pth", "weights_legacy.pth", "weights_ddp_wrapped.pth.tar"])
def test_published_files(name):
    folder = ORACLES / "models" / ARCH
    done("--from", folder / name, "--arch", ARCH, "--to", "a.safetensors")
    assert_same("a.safetensors", load_file(folder / "weights.safetensors"))


def test_list_of_models():
    header, *lines = done("--list", "deit_*_distilled*")
    assert header.split() == [
        "arch",
        "params",
        "MACs",
        "image",
        "classes",
        "mean",
        "std",
        "crop",
        "weights;",
        "aliases",
    ]
    archs = [line.split()[0] for line in lines]
    assert archs == [arch for arch in MODELS if "_distilled_" in arch]
    tiny_line = lines[0].split()
    assert tiny_line[1:5] == ["5910800", "1261003776", "224", "1000"]
    assert lines[0].endswith("ours, official, zoo, huggingface")
    (_, line) = done("--list", "twins_pcpvt_small")
    assert line.endswith("; twins_pcpvt_small")
