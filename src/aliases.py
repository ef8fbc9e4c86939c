"""Other names of keys and values: those of the model zoo and of other codebases, and those of single commands."""

# Another codebase's name -> ours. YAML and flags alike.
ALIASES = {
    "lr": "base_lr",
    "learning_rate": "base_lr",
    "lr_init": "base_lr",
    "eta_min": "min_lr",
    "epoch_size": "epochs",
    "warmup_epochs": "warmup_length",
    "wd": "weight_decay",
    "checkpoint_path": "pretrained",
    "ckpt_file": "pretrained",
    "modelarts": "run_modelarts",
    "in_channel": "in_channels",
    "in_chans": "in_channels",
    "sub_type": "arch",
    "logs_dir": "output_dir",
    "result_path": "result_dir",
    "model_path": "mindir_path",
    "mindir": "mindir_path",
    "onnx": "onnx_path",
    "data_path": "data_url",
}
SHORT_FLAGS = {"a": "arch", "b": "batch_size", "j": "num_parallel_workers", "n": "num_images"}
CONFIG_FLAGS = ("config", "cct_config", "tnt_config")
# Words that the zoo uses for the same choice.
VALUE_ALIASES = {
    "set": {"imagenet": "ImageNet", "cifar10": "CIFAR10", "cifar100": "CIFAR100", "flowers102": "Flowers102"},
    "lr_scheduler": {"cosine_annealing": "cosine_lr"},
    "optimizer": {"AdamWeightDecay": "adam_weight_decay", "Momentum": "momentum"},
    "dataset_name": {"Cifar10": "cifar10", "CIFAR10": "cifar10"},
}
# Zoo keys that never had an effect.
DEAD_KEYS = ("keep_bn_fp32", "nonlinearity", "drop_out", "curr_epoch", "deploy")
# In these commands a flag means a key of another name.
COMMAND_FLAGS = {
    "eval": {"report": "report_file"},
    "export": {"batch_size": "export_batch_size", "b": "export_batch_size"},
    "predict": {"csv": "csv_file", "json": "json_file"},
}
