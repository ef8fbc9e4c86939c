"""Weights as other codebases store them, made of the authors' arrays (timm's for all but CCT): a function a source."""

import re

import numpy as np

Arrays = dict[str, np.ndarray]


def is_norm(name: str) -> bool:
    """Whether a name of timm's or the CCT authors' is a layer norm's."""
    return re.search(r"(^|\.|_)norm\w*\.(weight|bias)$", name) is not None


def mindspore_norms(arrays: Arrays) -> Arrays:
    """Their arrays with the names of MindSpore's norms."""
    words = {"weight": "gamma", "bias": "beta"}
    split = {name: name.rpartition(".") for name in arrays}
    return {f"{split[n][0]}.{words[split[n][2]]}" if is_norm(n) else n: array for n, array in arrays.items()}


def split_rows(arrays: Arrays, fused: str, parts: tuple[str, ...]) -> Arrays:
    """``….fused.…`` in pieces of its first axis."""
    result = {}
    for name, array in arrays.items():
        if f".{fused}." in name:
            pieces = np.split(array, len(parts))
            result.update({name.replace(f".{fused}.", f".{part}."): p for part, p in zip(parts, pieces, strict=True)})
        else:
            result[name] = array
    return result


def zoo(arrays: Arrays) -> Arrays:
    """The zoo's CCT, DeiT and Twins."""
    arrays = split_rows(split_rows(mindspore_norms(arrays), "qkv", ("q", "k", "v")), "kv", ("k", "v"))
    return {name.replace(".linear1.", ".fc1.").replace(".linear2.", ".fc2."): a for name, a in arrays.items()}


def zoo_vit(arrays: Arrays) -> Arrays:
    """The zoo's ViT."""
    result = {}
    for name, array in split_rows(mindspore_norms(arrays), "qkv", ("query", "key", "value")).items():
        name = re.sub(r"^blocks\.", "transformer.encoder.layer.", name)
        name = name.replace(".norm1.", ".attention_norm.").replace(".norm2.", ".ffn_norm.")
        name = name.replace(".attn.proj.", ".attn.out.").replace(".mlp.", ".ffn.")
        name = re.sub(r"^norm\.", "transformer.encoder.encoder_norm.", name)
        name = name.replace("patch_embed.proj.", "transformer.embeddings.patch_embeddings.")
        name = re.sub(r"^cls_token$", "transformer.embeddings.cls_token", name)
        result[re.sub(r"^pos_embed$", "transformer.embeddings.position_embeddings", name)] = array
    return result


def bare_twins(arrays: Arrays) -> Arrays:
    """The zoo's Twins saved without a wrapper: its lists of lists lose names."""
    result = {}
    for name, array in zoo(arrays).items():
        words = name.split(".")
        if words[0] == "patch_embeds":
            words = words[1:]
        elif words[0] == "blocks":
            words = ["0", *words[2:]] if words[1] == "0" else ["0", *words[1:]]
        result[".".join(words)] = array
    return result


_TNT_WORDS = {
    "patch_pos": "outer_pos",
    "pixel_pos": "inner_pos",
    "pixel_embed": "patch_embed",
    "norm1_proj": "proj_norm1",
    "norm2_proj": "proj_norm2",
    "norm_in": "inner_norm1",
    "norm_mlp_in": "inner_norm2",
    "norm_out": "outer_norm1",
    "norm_mlp": "outer_norm2",
    "attn_in": "inner_attn",
    "attn_out": "outer_attn",
    "mlp_in": "inner_mlp",
    "mlp": "outer_mlp",
}


def tnt_pytorch(arrays: Arrays) -> Arrays:
    """The TNT authors' names."""
    result = {".".join(_TNT_WORDS.get(w, w) for w in name.split(".")): a for name, a in arrays.items()}
    pixels = result["inner_pos"]
    result["inner_pos"] = pixels.reshape(1, pixels.shape[1], -1).transpose(0, 2, 1)
    return result


def zoo_tnt(arrays: Arrays) -> Arrays:
    """The zoo's TNT, of a network that lacks its biases."""
    result = split_rows(tnt_pytorch(arrays), "qk", ("q", "k"))
    words = {"weight": "gamma", "bias": "beta"}
    renamed = {}
    for name, array in result.items():
        cell, _, leaf = name.rpartition(".")
        norm = re.search(r"norm\d?$", cell)
        cell = "proj_norm2_tnt" if cell == "proj_norm2" else cell
        renamed[f"{cell}.{words[leaf]}" if norm else name] = array
    return renamed


def deit3_authors(arrays: Arrays) -> Arrays:
    """facebookresearch/deit's DeiT III."""
    return {re.sub(r"ls(\d)\.gamma$", r"gamma_\1", name): array for name, array in arrays.items()}


def jax(arrays: Arrays, num_heads: int) -> Arrays:
    """google-research/vision_transformer as published, before Flax counted layers by kind."""
    D = arrays["cls_token"].shape[-1]
    result = {
        "cls": arrays["cls_token"],
        "Transformer/posembed_input/pos_embedding": arrays["pos_embed"],
        "embedding/kernel": arrays["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": arrays["patch_embed.proj.bias"],
        "Transformer/encoder_norm/scale": arrays["norm.weight"],
        "Transformer/encoder_norm/bias": arrays["norm.bias"],
        "head/kernel": arrays["head.weight"].T,
        "head/bias": arrays["head.bias"],
    }
    for index in range(sum(name.endswith("qkv.weight") for name in arrays)):
        block = {name.removeprefix(f"blocks.{index}."): a for name, a in arrays.items()}
        here = f"Transformer/encoderblock_{index}/"
        for number, norm in ((0, "norm1"), (2, "norm2")):
            result[f"{here}LayerNorm_{number}/scale"] = block[f"{norm}.weight"]
            result[f"{here}LayerNorm_{number}/bias"] = block[f"{norm}.bias"]
        attention = f"{here}MultiHeadDotProductAttention_1/"
        weight = block["attn.qkv.weight"].reshape(3, num_heads, -1, D)
        bias = block["attn.qkv.bias"].reshape(3, num_heads, -1)
        for part, word in enumerate(("query", "key", "value")):
            result[f"{attention}{word}/kernel"] = weight[part].transpose(2, 0, 1)
            result[f"{attention}{word}/bias"] = bias[part]
        result[f"{attention}out/kernel"] = block["attn.proj.weight"].reshape(D, num_heads, -1).transpose(1, 2, 0)
        result[f"{attention}out/bias"] = block["attn.proj.bias"]
        for number in (0, 1):
            result[f"{here}MlpBlock_3/Dense_{number}/kernel"] = block[f"mlp.fc{number + 1}.weight"].T
            result[f"{here}MlpBlock_3/Dense_{number}/bias"] = block[f"mlp.fc{number + 1}.bias"]
    return result


def big_vision(arrays: Arrays, num_heads: int, prefix: str = "params/") -> Arrays:
    """big_vision: newer names, positions of the patches alone; what it adds to the class token is in the token."""
    arrays = {**arrays, "cls_token": arrays["cls_token"] + arrays["pos_embed"][:, :1]}
    result = {}
    for name, array in jax(arrays, num_heads).items():
        name = name.replace("LayerNorm_2", "LayerNorm_1").replace("MlpBlock_3", "MlpBlock_0")
        name = name.replace("MultiHeadDotProductAttention_1", "MultiHeadDotProductAttention_0")
        result[prefix + name.replace("Transformer/posembed_input/pos_embedding", "pos_embedding")] = array
    result[f"{prefix}pos_embedding"] = result[f"{prefix}pos_embedding"][:, 1:]
    return result


def stacked(arrays: Arrays) -> Arrays:
    """Files of JAX whose blocks were scanned: a leading axis of layers."""
    result = {name: array for name, array in arrays.items() if "encoderblock_" not in name}
    layers: dict[str, list[np.ndarray]] = {}
    for name, array in arrays.items():
        if "encoderblock_" in name:
            layers.setdefault(re.sub(r"encoderblock_\d+", "encoderblock", name), []).append(array)
    return {**result, **{name: np.stack(array) for name, array in layers.items()}}


def huggingface(arrays: Arrays) -> Arrays:
    """transformers' ViTForImageClassification, or DeiTForImageClassificationWithTeacher of a distilled network."""
    distilled = "dist_token" in arrays
    prefix = "deit" if distilled else "vit"
    head = "cls_classifier" if distilled else "classifier"
    fixed = {
        "cls_token": f"{prefix}.embeddings.cls_token",
        "dist_token": f"{prefix}.embeddings.distillation_token",
        "pos_embed": f"{prefix}.embeddings.position_embeddings",
    }
    words = {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
        "attn.query": "attention.attention.query",
        "attn.key": "attention.attention.key",
        "attn.value": "attention.attention.value",
    }
    result = {}
    for name, array in split_rows(arrays, "qkv", ("query", "key", "value")).items():
        match = re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", name)
        cell, _, leaf = name.rpartition(".")
        if match:
            name = f"{prefix}.encoder.layer.{match[1]}.{words[match[2]]}.{match[3]}"
        elif name in fixed:
            name = fixed[name]
        else:
            place = {
                "patch_embed.proj": f"{prefix}.embeddings.patch_embeddings.projection",
                "norm": f"{prefix}.layernorm",
                "head": head,
                "head_dist": "distillation_classifier",
            }
            name = f"{place[cell]}.{leaf}"
        result[name] = array
    return result


def transformers_5(arrays: Arrays) -> Arrays:
    """The same with the names that transformers 5 has inside."""
    result = {}
    for name, array in huggingface(arrays).items():
        name = name.replace(".encoder.layer.", ".layers.").replace(".attention.output.dense.", ".attention.o_proj.")
        name = re.sub(r"\.attention\.attention\.([qkv])\w+\.", r".attention.\1_proj.", name)
        result[name.replace(".intermediate.dense.", ".mlp.fc1.").replace(".output.dense.", ".mlp.fc2.")] = array
    return result
