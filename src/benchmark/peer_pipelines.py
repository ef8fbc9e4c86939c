"""timm's loader of a case, with the prefetcher that is its default. Imports torch, torchvision and timm only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import FastCollateMixup, ImageDataset, auto_augment, create_loader
from timm.data.transforms import ToNumpy
from torch.utils.data import Dataset
from torchvision import transforms


class ArrayDataset(Dataset):
    """Arrays of the network's size, as torchvision's CIFAR10 holds them.

    Args:
        path: an .npy file, uint8 (N, Y, X, C).
        num_classes: of the labels, which go round.
    """

    def __init__(self, path: Path, num_classes: int):
        self.image_NYXC, self.num_classes, self.transform = np.load(path), num_classes, None

    def __len__(self) -> int:
        return len(self.image_NYXC)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.image_NYXC[index])), index % self.num_classes


def posterize(image: Image.Image, bits: int, **unused: Any) -> Image.Image:
    """Keep so many bits, as timm does, with any Pillow."""
    return auto_augment.posterize(image, bits) if bits > 0 else Image.new("RGB", image.size)


def build_loader(request: dict[str, Any]) -> Any:
    """The loader of a request of `src.benchmark.data_runner`."""
    # Pillow 13 refuses the 0 bits that timm's noise on magnitudes may ask for, and that used to make an image black.
    auto_augment.NAME_TO_OP["PosterizeIncreasing"] = posterize
    folder, augment = Path(request["folder"]), request["augment"]
    dataset = (
        ImageDataset(folder) if request["is_jpeg"] else ArrayDataset(folder / "images.npy", request["num_classes"])
    )
    mixing = None
    if augment.get("mix_up") or augment.get("cutmix"):
        mixing = FastCollateMixup(
            augment["mix_up"],
            augment["cutmix"],
            label_smoothing=augment["label_smoothing"],
            num_classes=request["num_classes"],
        )
    loader = create_loader(
        dataset,
        input_size=(3, request["image_size"], request["image_size"]),
        batch_size=request["batch_size"],
        is_training=request["training"],
        re_prob=augment.get("re_prob", 0.0),
        re_mode=augment.get("re_mode", "const"),
        color_jitter=0.0,
        auto_augment=augment.get("auto_augment"),
        interpolation="bicubic",
        mean=request["mean"],
        std=request["std"],
        num_workers=request["workers"],
        crop_pct=request["crop_pct"],
        collate_fn=mixing,
        device=torch.device("cpu"),
    )
    if augment.get("train_crop") == "pad":
        # timm has no such crop; what the prefetcher does is its own again.
        crop = transforms.RandomCrop(request["image_size"], padding=4)
        dataset.transform = transforms.Compose([crop, transforms.RandomHorizontalFlip(), ToNumpy()])
    return loader


class PeerEpochs:
    """Iterate it for one epoch after the other; nothing is read ahead of an epoch."""

    def __init__(self, loader: Any):
        self.loader = loader

    def __iter__(self) -> Iterator[tuple[torch.Tensor, int]]:
        """Images, and how many they are."""
        for image_BCYX, _ in self.loader:
            yield image_BCYX, len(image_BCYX)
