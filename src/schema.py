"""Every key that a YAML or a flag can set: its section, type, default and meaning.

Users see one flat namespace, code sees these frozen sections; a test holds the leaf names unique over all of them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError


def _split_commas(value: object) -> object:
    """``0.9,0.999`` and ``[0.9, 0.999]`` as a flag's text."""
    if isinstance(value, str):
        return [part.strip() for part in value.strip("[]() ").split(",")]
    return value


def _none_if_empty(value: object) -> object:
    """A flag has no other way to say null than a word."""
    return None if isinstance(value, str) and value.lower() in {"", "none", "null"} else value


def _split_patterns(value: object) -> object:
    """``a.*,b`` as a flag's text; brackets belong to a pattern."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _none_if_dynamic(value: object) -> object:
    """A batch size that the user of the file chooses is None; anything else has to be a count."""
    if value is None or value == "dynamic":
        return None
    if str(value).isdigit() and int(value) > 0:
        return int(value)
    raise PydanticCustomError("batch_size", "must be a whole number from 1, or dynamic")


def _whole_number(value: object) -> object:
    """A choice of whole numbers is text when it comes from a flag."""
    return int(value) if isinstance(value, str) and value.strip().isdigit() else value


Rate = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Pair = Annotated[tuple[float, float], BeforeValidator(_split_commas)]
Triple = Annotated[tuple[float, float, float], BeforeValidator(_split_commas)]
Counts = Annotated[tuple[Count, ...], BeforeValidator(_split_commas)]
Positives = Annotated[tuple[Positive, ...], BeforeValidator(_split_commas)]
OptionalTriple = Annotated[Triple | None, BeforeValidator(_none_if_empty)]
Patterns = Annotated[tuple[str, ...], BeforeValidator(_split_patterns)]
Path = Annotated[str | None, BeforeValidator(_none_if_empty)]


def or_none(of: object) -> object:
    """A type whose flag may also say none."""
    return Annotated[of | None, BeforeValidator(_none_if_empty)]


class Section(BaseModel):
    """A group of keys; immutable, and nothing else fits in."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class NetworkConfig(Section):
    """Which network, and where its weights come from."""

    arch: str = Field("cct_7_3x1_32", description="model name, see README for the list")
    num_classes: or_none(Count) = Field(None, description="outputs of the head")
    image_size: or_none(Count) = Field(None, description="side of the square input in pixels")
    in_channels: Count = Field(3, description="image channels")
    compat: or_none(Literal["official", "zoo"]) = Field(
        None, description="the authors' numerics or the model zoo's; empty for those of the weights"
    )
    pretrained: Path = Field(None, description="weights to start from (train) or to use (eval, export, verify)")
    reset_head: bool = Field(
        True, description="training: a new head where the class count of the weights differs; False refuses them"
    )
    use_ema: bool = Field(False, description="take the moving average of the weights, where the file holds one")
    resample_patches: bool = Field(False, description="resample the patch embedding of weights with another patch size")


class ModelConfig(NetworkConfig):
    """The network and its sizes. An empty size is the arch's own."""

    embed_dim: or_none(Count) = Field(None, description="width of a token")
    depth: or_none(Count) = Field(None, description="number of blocks")
    num_heads: or_none(Count) = Field(None, description="attention heads")
    mlp_ratio: or_none(Positive) = Field(None, description="hidden width of the MLP over embed_dim")
    patch_size: or_none(Count) = Field(None, description="side of a patch (ViT, DeiT, TNT)")
    kernel_size: or_none(Count) = Field(None, description="tokenizer kernel (CCT)")
    num_conv_layers: or_none(Annotated[int, Field(ge=1, le=2)]) = Field(None, description="tokenizer layers (CCT)")
    positional_embedding: or_none(Literal["learnable", "sine"]) = Field(None, description="position embedding (CCT)")
    embed_dims: or_none(Counts) = Field(None, description="width of a token in each stage (Twins)")
    depths: or_none(Counts) = Field(None, description="blocks in each stage (Twins)")
    stage_heads: or_none(Counts) = Field(None, description="attention heads in each stage (Twins)")
    mlp_ratios: or_none(Positives) = Field(None, description="mlp_ratio in each stage (Twins)")
    sr_ratios: or_none(Counts) = Field(None, description="subsampling of keys and values in each stage (Twins)")
    window_sizes: or_none(Counts) = Field(None, description="side of an attention window in each stage (Twins-SVT)")
    inner_dim: or_none(Count) = Field(None, description="width of a pixel token (TNT)")
    inner_num_heads: or_none(Count) = Field(None, description="attention heads over the pixels (TNT)")
    drop_rate: or_none(Rate) = Field(None, description="dropout")
    attn_drop_rate: or_none(Rate) = Field(None, description="dropout of attention probabilities")
    drop_path_rate: or_none(Rate) = Field(None, description="stochastic depth of the last block")

    def sizes(self) -> dict[str, object]:
        """The overridden sizes, as `build_model` takes them."""
        given = self.model_dump(exclude=set(NetworkConfig.model_fields))
        return {key: value for key, value in given.items() if value is not None}


class DataConfig(Section):
    """Where images come from and how evaluation sees them."""

    set: Literal["ImageNet", "folder", "list", "digits", "CIFAR10", "CIFAR100", "Flowers102", "synthetic"] = Field(
        "folder", description="kind of data set; ImageNet and folder both mean folders of class folders"
    )
    data_url: str = Field("./data", description="its folder; holds train and val. For a list: the file, or its folder")
    val_fraction: Rate = Field(
        0.0, description="share of every class that is held out as val where data_url has none (ImageNet, folder, list)"
    )
    batch_size: Count = Field(128, description="images per device and step")
    num_parallel_workers: Annotated[int, Field(ge=0)] = Field(
        4, description="processes that read and transform (at most the CPU's cores); 0: the training process"
    )
    exif_orientation: bool = Field(False, description="turn images as their cameras say; the zoo does not")
    on_bad_image: Literal["error", "skip"] = Field(
        "error", description="an image that cannot be read ends the run, or is left out and named"
    )
    crop_pct: or_none(Annotated[float, Field(gt=0, le=1)]) = Field(
        None, description="evaluation: image_size over the resized side; empty for the arch's own"
    )
    interpolation: or_none(Literal["bicubic", "bilinear", "lanczos", "hamming", "random"]) = Field(
        None, description="resampling; random: training picks bilinear or bicubic, evaluation is bicubic"
    )
    resize_mode: Literal["shorter", "squash"] = Field(
        "shorter", description="evaluation resize: shorter side, or both sides as the zoo"
    )
    mean: OptionalTriple = Field(None, description="of the channels, in [0, 1]; empty for the arch's own")
    std: OptionalTriple = Field(None, description="of the channels, in [0, 1]; empty for the arch's own")


class AugmentConfig(Section):
    """What training does to images and labels."""

    train_crop: Literal["random_resized", "pad", "none"] = Field(
        "random_resized", description="random area and aspect; or pad and shift; or resize only"
    )
    crop_scale: Pair = Field((0.08, 1.0), description="area of a random_resized crop over the image's")
    crop_ratio: Pair = Field((3 / 4, 4 / 3), description="aspect of a random_resized crop")
    crop_padding: Annotated[int, Field(ge=0)] = Field(4, description="pixels of shift for train_crop pad")
    hflip: Probability = Field(0.5, description="probability of a horizontal flip")
    auto_augment: Path = Field(
        None, description="policy: rand-m9-mstd0.5-inc1, original, v0, 3a, augmix-m3-w3, trivial"
    )
    color_jitter: NotNegative = Field(0.0, description="brightness, contrast and colour vary by this factor")
    re_prob: Probability = Field(0.0, description="random erasing: probability")
    re_mode: Literal["const", "rand", "pixel"] = Field("pixel", description="random erasing: fill")
    re_count: Count = Field(1, description="random erasing: boxes")
    mix_up: NotNegative = Field(0.0, description="Mixup alpha, 0 for none")
    cutmix: NotNegative = Field(0.0, description="CutMix alpha, 0 for none")
    cutmix_minmax: or_none(Annotated[tuple[Probability, Probability], BeforeValidator(_split_commas)]) = Field(
        None, description="sides of CutMix's box over the image's, in place of cutmix"
    )
    mixup_prob: Probability = Field(1.0, description="share of batches that are mixed")
    switch_prob: Probability = Field(0.5, description="share of CutMix where both are on")
    mixup_mode: Literal["batch", "pair", "elem"] = Field("batch", description="what shares one mixing ratio")
    mixup_off_epoch: Annotated[int, Field(ge=0)] = Field(0, description="no mixing from this epoch on, 0 for never")
    aug_repeats: Count = Field(1, description="repeated augmentation: how often in a row an image comes")
    label_smoothing: Rate = Field(0.1, description="share of the target spread over all classes")


class OptimConfig(Section):
    """Optimizer, what it trains, and gradient clipping."""

    optimizer: Literal["adamw", "adam_weight_decay", "momentum", "sgd", "lamb", "lion", "muon"] = Field(
        "adamw", description="update rule; adam_weight_decay: the zoo's, without bias correction; sgd: as momentum"
    )
    base_lr: Positive = Field(5e-4, description="peak learning rate")
    lr_scale_base: or_none(Count) = Field(
        None,
        description="multiply learning rates by the images of an update / this; empty for no scaling",
    )
    lr_scale_ends: bool = Field(
        True, description="lr_scale_base is for warmup_lr and min_lr too, as in the zoo; False: for base_lr alone"
    )
    weight_decay: NotNegative = Field(
        0.05, description="decoupled weight decay; momentum and sgd add it to the gradient, lamb to the step"
    )
    decay_rule: Literal["standard", "zoo", "all"] = Field(
        "standard", description="what is decayed: matrices without tokens and positions; or as the zoo; or all"
    )
    layer_decay: or_none(Annotated[float, Field(gt=0, le=1)]) = Field(
        None, description="each layer's rate over that of the layer behind it; empty: one rate for all"
    )
    freeze: Patterns = Field((), description="patterns of names of parameters that stay: patch_embed.*,blocks.0.*")
    beta: Annotated[tuple[Rate, Rate], BeforeValidator(_split_commas)] = Field(
        (0.9, 0.999), description="of adamw, lamb, lion (whose authors use 0.9,0.99) and muon's other tensors"
    )
    eps: Positive = Field(1e-8, description="of adamw, lamb and muon's other tensors")
    momentum: Rate = Field(0.9, description="of momentum, sgd and muon")
    nesterov: bool = Field(False, description="look ahead along the momentum (momentum, sgd, muon)")
    clip_global_norm: bool = Field(True, description="clip gradients where clip_global_norm_value is given")
    clip_global_norm_value: or_none(NotNegative) = Field(None, description="largest global norm; empty or 0: no clip")
    accumulation_step: Count = Field(1, description="batches of a device that make one update, as one larger batch")
    with_ema: bool = Field(False, description="keep a moving average of the weights; it decides which epoch is best")
    ema_decay: Rate = Field(0.9999, description="share of the moving average that stays at an update")
    ema_warmup: bool = Field(False, description="a smaller ema_decay at first: at most (1 + n) / (10 + n)")


class DistillConfig(Section):
    """Learning from a trained network, as DeiT does."""

    distillation_type: Literal["none", "hard", "soft"] = Field(
        "none", description="learn the teacher's choice, or its probabilities"
    )
    distillation_alpha: Probability = Field(0.5, description="share of the teacher in the loss")
    distillation_tau: Positive = Field(1.0, description="temperature of soft distillation")
    teacher_config: Path = Field(None, description="YAML of the teacher: its arch, sizes, classes, mean and std")
    teacher_pretrained: Path = Field(None, description="its weights, where the YAML does not name them")


class ScheduleConfig(Section):
    """Length of the run and learning rate per step."""

    epochs: Count = Field(300, description="passes over the training set, the warm-up included")
    start_epoch: Annotated[int, Field(ge=0)] = Field(
        0, description="a run without a checkpoint begins with this epoch and its learning rate, from 0"
    )
    lr_scheduler: Literal["cosine_lr", "constant_lr", "multistep_lr", "exp_lr", "timm_cosine"] = Field(
        "cosine_lr", description="curve after the warm-up; timm_cosine begins it with the warm-up"
    )
    lr_per_epoch: bool = Field(False, description="one rate for all steps of an epoch")
    warmup_length: NotNegative = Field(0.0, description="epochs of linear warm-up")
    warmup_lr: NotNegative = Field(5e-7, description="learning rate of the first step")
    min_lr: NotNegative = Field(1e-6, description="learning rate at the end of the cosine, and of the cool-down")
    min_lr_rule: or_none(Literal["end", "clip", "add", "add_clip"]) = Field(
        None, description="min_lr is the curve's end, a lower bound, added, or both; empty: end of a cosine, else bound"
    )
    cooldown_epochs: Annotated[int, Field(ge=0)] = Field(0, description="epochs at min_lr after the last")
    lr_gamma: Positive = Field(0.97, description="factor of exp_lr per epoch, of multistep_lr per lr_adjust epochs")
    lr_adjust: Positive = Field(30.0, description="epochs per factor of multistep_lr")


class PrecisionConfig(Section):
    """Half precision and loss scale. A CPU computes in float32 at every level, and says so; it scales all the same."""

    amp_level: Literal["O0", "O1", "O2", "O3"] = Field(
        "O0", description="what runs in half precision: nothing; all but norms, soft-max and GELU; all but norms; all"
    )
    amp_dtype: Literal["float16", "bfloat16"] = Field(
        "float16", description="half precision; bfloat16 has float32's range and needs no loss scale"
    )
    is_dynamic_loss_scale: bool = Field(True, description="adapt the loss scale; with amp_level O0 there is none")
    loss_scale: Positive = Field(1024.0, description="fixed loss scale, where it is not dynamic")
    initial_loss_scale: or_none(Positive) = Field(
        None, description="where a dynamic scale begins; empty: 65536, with compat zoo that of the family's zoo"
    )
    loss_scale_factor: Annotated[float, Field(gt=1)] = Field(
        2.0, description="an overflow divides a dynamic scale by it, a quiet window multiplies"
    )
    loss_scale_window: or_none(Count) = Field(
        None, description="updates without overflow before the scale grows; empty: 2000, with compat zoo the zoo's"
    )


class CheckpointConfig(Section):
    """What a run leaves behind, in OUTPUT_DIR/ckpt_RANK."""

    output_dir: str = Field(".", description="parent of ckpt_RANK; export and verify write here")
    resume: str = Field("auto", description="auto: go on where the run directory ends; none; or a checkpoint file")
    keep_checkpoint_max: Count = Field(2, description="newest checkpoints that are kept, besides the best")
    save_every: Count = Field(1, description="epochs between checkpoints")
    save_steps: Annotated[int, Field(ge=0)] = Field(
        0, description="updates between checkpoints inside an epoch; 0: none"
    )
    keep_every: Annotated[int, Field(ge=0)] = Field(0, description="checkpoints of every so many epochs stay; 0: none")
    stop_after: or_none(Count) = Field(
        None, description="save and end with exit code 75 after this update of the run, as a signal would"
    )


class RunConfig(Section):
    """Device, seed, what is logged, and when a run is given up."""

    device_target: Literal["CPU", "Ascend", "GPU"] = Field("CPU", description="where to run")
    device_id: Annotated[int, Field(ge=0)] = Field(0, description="which device of this server")
    device_num: Count = Field(1, description="devices in all; distribute.py or msrun start more than one")
    graph_mode: Annotated[Literal[0, 1], BeforeValidator(_whole_number)] = Field(
        0, description="0 compiles the network, 1 runs it operator by operator (PyNative)"
    )
    graph_kernel: bool = Field(True, description="CPU: compile chains of elementwise operators into one kernel")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(0, description="of every random choice")
    do_val: bool = Field(True, description="evaluate after every epoch")
    log_every: Count = Field(50, description="updates between two records of metrics.jsonl, whose means they hold")
    max_overflows: Count = Field(32, description="overflows in a row, with a loss scale, that end the run")
    divergence_guard_epochs: Annotated[int, Field(ge=0)] = Field(
        10,
        description="epochs past the warm-up, after which a loss no better than guessing ends the run; 0: never",
    )
    dry_run: bool = Field(False, description="train.py: check everything and print the plan; train and write nothing")
    run_modelarts: bool = Field(False, description="copy data and results to and from ModelArts storage")
    train_url: Path = Field(None, description="ModelArts output")


class PipelineConfig(Section):
    """What train.py does besides training: with all of it, one command leads from a folder to a verified model."""

    check_images: Literal["none", "warn", "strict"] = Field(
        "none", description="look at every image before the run and list what is wrong; strict: findings end the run"
    )
    verified_export: bool = Field(
        False, description="at the end export the best weights as MINDIR and ONNX, and compare each with the checkpoint"
    )
    report: bool = Field(False, description="evaluate the best weights once more at the end, into ckpt_0/report.html")


class EvaluationConfig(Section):
    """What eval.py looks at, and what it writes besides the zoo's lines."""

    eval_set: Literal[
        "val", "imagenet_v2", "imagenet_real", "imagenet_a", "imagenet_r", "imagenet_sketch", "imagenet_c"
    ] = Field("val", description="the split val, or another set of ImageNet's classes in the folder data_url")
    class_order: Path = Field(
        None,
        description="ImageNet sets, where the weights do not say their classes: train folder, or file of a name a line",
    )
    real_labels: Path = Field(None, description="real.json of imagenet_real")
    metrics: or_none(Literal["per_class"]) = Field(
        None, description="per_class: precision, recall, F1 of every class, also to OUTPUT_DIR/per_class.csv"
    )
    results_csv: Path = Field(None, description="file to add a line to for every evaluation")
    compare: Patterns = Field((), description="more weights, to compare with pretrained on the same images: B,C")
    report_file: Path = Field(None, description="HTML file to write a report to (eval.py --report)")


class ExportConfig(Section):
    """The exported file."""

    file_format: Literal["MINDIR", "AIR", "ONNX"] = Field("MINDIR", description="of export.py")
    file_name: Path = Field(None, description="name without suffix; empty for the arch's")
    export_batch_size: Annotated[int | None, BeforeValidator(_none_if_dynamic)] = Field(
        1, description="images per call of the exported network, or dynamic: any number (export.py --batch_size)"
    )
    ir_version: Annotated[Literal[1, 3], BeforeValidator(_whole_number)] = Field(
        3, description="3 for MindSpore 2.3 and later, 1 for MindSpore Lite 2.0 to 2.2"
    )
    quantization: Literal["none", "int8"] = Field(
        "none", description="int8 weights in an ONNX file; for MINDIR the configuration of MindSpore Lite's converter"
    )
    calibrate_path: Path = Field(None, description="MINDIR with int8: folder of 100 to 500 images, no subfolders")
    fold: bool = Field(True, description="put constant factors (attention's, DeiT III's layer scale) into the weights")


class VerifyConfig(Section):
    """What verify.py compares with the checkpoint, on how many images, and how closely."""

    mindir_path: Path = Field(None, description="MINDIR file with its .json; empty to leave it out")
    onnx_path: Path = Field(None, description="ONNX file with its .json; empty to leave ONNX Runtime out")
    runner: bool = Field(
        False, description="run the C++ runner, built if needed, on mindir_path or its IR version 1 in the same folder"
    )
    runner_threads: Count = Field(2, description="CPU threads of the C++ runner")
    result_dir: Path = Field(None, description="results that the C++ runner left, here or on a device")
    num_images: or_none(Count) = Field(
        None, description="images of the val split to compare on, from all classes evenly; empty: all"
    )
    tolerance: Positive = Field(1e-4, description="largest accepted difference of a logit; not for int8 weights")
    min_agreement: Probability = Field(1.0, description="smallest accepted share of the checkpoint's first classes")


class Config(BaseModel):
    """Everything a run depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    optim: OptimConfig = OptimConfig()
    distill: DistillConfig = DistillConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    precision: PrecisionConfig = PrecisionConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    run: RunConfig = RunConfig()
    pipeline: PipelineConfig = PipelineConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    export: ExportConfig = ExportConfig()
    verify: VerifyConfig = VerifyConfig()


# What training accepts today; anything else loads, and is refused when a run would need it.
BUILT_FOR_TRAINING: dict[str, tuple] = {
    "in_channels": (3,),
    "run_modelarts": (False,),
    "train_url": (None,),
}
BUILT_FOR_EVALUATION = {key: BUILT_FOR_TRAINING[key] for key in ("in_channels", "run_modelarts")}
BUILT_FOR_EXPORT = {"run_modelarts": (False,)}
