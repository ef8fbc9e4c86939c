"""The table of models: names, aliases, defaults, and every way in which a request can be wrong."""

import numpy as np
import pytest
from mindspore import Tensor
from mindspore.nn.utils import no_init_parameters

from src.errors import ConfigError
from src.models import ALIASES, MODELS, SIZE_ALIASES, build_configured_model, build_model, model_entry, resolved
from src.schema import Config, DataConfig, ModelConfig
from tests.networks import FAMILIES, TINY_IMAGE_SIZE, official_shapes, tiny


def shapes(*args, **kwargs) -> dict[str, tuple[int, ...]]:
    with no_init_parameters():
        return official_shapes(build_model(*args, **kwargs))


@pytest.mark.parametrize(
    ("alias", "arch"),
    [
        ("ViT-B_16", "vit_base_patch16_224"),
        ("ViT-B_32", "vit_base_patch32_224"),
        ("ViT-L_16", "vit_large_patch16_224"),
        ("ViT-L_32", "vit_large_patch32_224"),
        ("ViT-H_14", "vit_huge_patch14_224"),
        ("testing", "vit_testing"),
        ("cct_14-7x2_imagenet", "cct_14_7x2_224"),
        ("twins_pcpvt_small", "pcpvt_small_v0"),
        ("twins_svt_large", "alt_gvt_large"),
    ],
)
def test_names_of_the_zoo(alias, arch):
    assert model_entry(alias) is MODELS[arch]


def test_aliases_lead_to_models():
    assert set(ALIASES.values()) <= MODELS.keys()
    assert not ALIASES.keys() & MODELS.keys()


@pytest.mark.parametrize(
    ("arch", "image_size", "num_classes", "mean", "crop_pct"),
    [
        ("cct_7_3x1_32", 32, 10, 0.4914, 1.0),
        ("cct_7_3x1_32_sine_c100", 32, 100, 0.5071, 1.0),
        ("cct_7_7x2_224", 224, 102, 0.4353, 1.0),
        ("cct_14_7x2_224", 224, 1000, 0.485, 0.9),
        ("cct_14_7x2_384", 384, 1000, 0.485, 0.9),
        ("cct_14_7x2_384_fl", 384, 102, 0.4353, 1.0),
        ("vit_base_patch16_224", 224, 1000, 0.5, 0.9),
        ("vit_base_patch16_384", 384, 1000, 0.5, 1.0),
        ("deit_small_patch16_224", 224, 1000, 0.485, 0.9),
        ("deit3_large_patch16_384", 384, 1000, 0.485, 1.0),
        ("pcpvt_small_v0", 224, 1000, 0.485, 0.9),
        ("tnt_b_patch16_224", 224, 1000, 0.5, 0.9),
    ],
)
def test_defaults_of_an_arch(arch, image_size, num_classes, mean, crop_pct):
    entry = MODELS[arch]
    assert (entry.image_size, entry.num_classes) == (image_size, num_classes)
    assert (entry.default_cfg.mean[0], entry.default_cfg.crop_pct) == (mean, crop_pct)
    # What is left open in a config is filled from here, and what is given stays.
    config = resolved(Config(model=ModelConfig(arch=arch)))
    assert (config.model.num_classes, config.data.mean[0], config.data.crop_pct) == (num_classes, mean, crop_pct)
    given = Config(model=ModelConfig(arch=arch, num_classes=7), data=DataConfig(crop_pct=0.7, mean=(0.1, 0.2, 0.3)))
    assert resolved(given).model.num_classes == 7
    assert resolved(given).data.crop_pct == 0.7
    assert resolved(given).data.mean == (0.1, 0.2, 0.3)


def test_sizes_can_be_overridden_by_any_of_their_names():
    plain = shapes("cct_2_3x2_32", embed_dim=64, depth=3, num_heads=4, num_conv_layers=1)
    other = shapes("cct_2_3x2_32", embedding_dim=64, num_layers=3, heads=4, n_conv_layers=1)
    assert plain == other
    assert plain["tokenizer.conv_layers.0.0.weight"] == (64, 3, 3, 3)
    assert {name.split(".")[2] for name in plain if ".blocks." in name} == {"0", "1", "2"}
    known = set().union(*(entry.sizes for entry in MODELS.values()))
    assert set(SIZE_ALIASES.values()) <= known


def test_image_size_and_channels_reach_the_model():
    assert shapes("vit_tiny_patch16_224", image_size=64)["pos_embed"] == (1, 17, 192)
    assert shapes("vit_tiny_patch16_224", in_channels=1)["patch_embed.proj.weight"] == (192, 1, 16, 16)
    assert shapes("cct_2_3x2_32", image_size=64)["classifier.positional_emb"] == (1, 256, 128)


def test_a_model_follows_its_config():
    model = ModelConfig(arch="vit_tiny_patch16_224", image_size=32, num_classes=7, depth=1, embed_dim=24, num_heads=2)
    with no_init_parameters():
        net = build_configured_model(model)
    assert official_shapes(net)["head.weight"] == (7, 24)
    assert official_shapes(net)["pos_embed"] == (1, 5, 24)


@pytest.mark.parametrize(
    ("arch", "sizes", "words"),
    [
        ("cct_7_3x1_23", {}, "arch: no such model. Received: cct_7_3x1_23. Known: cct_7_3x1_32"),
        ("resnet18", {}, "arch: no such model. Received: resnet18. Known: "),
        (
            "deit_small_patch16_225",
            {},
            "arch: no such model. Received: deit_small_patch16_225. Known: deit_small_patch",
        ),
        ("vit_tiny_patch16_224", {"compat": "torch"}, "compat: unknown numerics. Received: torch. Known: official"),
        ("vit_tiny_patch16_224", {"kernel_size": 3}, "kernel_size: vit has no such size. Received: 3"),
        ("vit_tiny_patch16_224", {"num_heads": 5}, "model: dim must be a multiple of num_heads. Received: dim 192"),
        ("vit_tiny_patch16_224", {"image_size": 30}, "model: image_size must be a multiple of patch_size. Received: "),
        ("vit_tiny_patch16_224", {"drop_path_rate": 1.0}, "model: drop_path_rate must be at least 0 and below 1"),
        ("cct_2_3x2_32", {"positional_embedding": "none"}, "model: positional_embedding must be learnable or sine"),
        ("cct_2_3x2_32", {"patch_size": 4}, "patch_size: cct has no such size. Received: 4"),
        ("pcpvt_small_v0", {"image_size": 100}, "model: image_size must be a multiple of 32. Received: 100"),
        (
            "pcpvt_small_v0",
            {"depths": (1, 1)},
            "model: embed_dims must have as many entries as depths, 2. Received: (64",
        ),
        (
            "pcpvt_small_v0",
            {"num_heads": (1, 2, 3, 8)},
            "model: dim must be a multiple of num_heads. Received: dim 320",
        ),
        ("alt_gvt_small", {"depth": 2}, "depth: twins has no such size. Received: 2. Known: "),
        ("tnt_s_patch16_224", {"patch_size": 14}, "model: image_size must be a multiple of patch_size, and that of 4."),
        ("deit_tiny_patch16_224", {"inner_dim": 2}, "inner_dim: deit has no such size"),
    ],
)
def test_wrong_requests(arch, sizes, words):
    with pytest.raises(ConfigError) as caught:
        build_model(arch, **sizes)
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize("family", FAMILIES)
def test_layer_groups_hold_every_parameter_once_in_order(family):
    net = tiny(family)
    groups = net.layer_groups()
    names = [name for group in groups for name in group]
    assert sorted(names) == sorted(name for name, _ in net.parameters_and_names())
    assert len(names) == len(set(names))
    assert len(groups) == 2 + 2
    assert all(groups)
    assert any(name.startswith(net.head_prefixes()) for name in groups[-1])
    assert net.no_weight_decay() <= {name for group in groups[:-1] for name in group}


def test_another_image_size_is_an_error_not_a_result():
    with pytest.raises(AssertionError, match="image size differs"):
        tiny("vit")(Tensor(np.zeros((1, 3, TINY_IMAGE_SIZE * 2, TINY_IMAGE_SIZE * 2), np.float32)))
