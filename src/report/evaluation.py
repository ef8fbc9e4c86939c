"""What eval.py does: evaluate, and say and write what was asked for."""

from __future__ import annotations

from pathlib import Path

from src.class_table import class_rows, table_lines, write_class_csv
from src.device import rank
from src.errors import ConfigError
from src.report.comparison import comparison_lines, config_for
from src.report.content import content_of
from src.report.corruptions import corruption_errors, error_lines
from src.report.page import write_report
from src.report.results_csv import append_result
from src.schema import Config
from src.trainers.evaluator import Evaluation, evaluate_checkpoint


def evaluate_and_report(config: Config) -> None:
    """Evaluate the weights ``pretrained`` and those of ``compare``.

    Raises:
        UserError: as `evaluate_checkpoint`; a file that cannot be added to.
    """
    wanted = config.evaluation
    if wanted.eval_set == "imagenet_real" and wanted.metrics is not None:
        raise ConfigError("metrics", "needs one label for each image, imagenet_real has several", wanted.metrics)
    # What is wrong with a file is said before the first evaluation.
    configs = [config, *(config_for(config, weights) for weights in wanted.compare)]
    evaluations = []
    for one in configs:
        evaluation = evaluate_checkpoint(one)
        evaluations.append(evaluation)
        if wanted.results_csv is not None and rank() == 0:
            append_result(Path(wanted.results_csv), evaluation)
    if rank() == 0:
        _say_and_write(evaluations[0])
        if wanted.compare:
            print("\n".join(comparison_lines(evaluations)))
    print("=> eval success")


def _say_and_write(evaluation: Evaluation) -> None:
    """What was asked for about the weights ``pretrained``."""
    wanted, eval_set = evaluation.config.evaluation, evaluation.eval_set
    if eval_set.corruptions is not None:
        index_N = evaluation.result.prediction_N["index"]
        print("\n".join(error_lines(corruption_errors(index_N, evaluation.is_right, eval_set.corruptions))))
    if wanted.metrics == "per_class":
        rows = class_rows(evaluation.result.prediction_N, eval_set.images.class_names)
        print("\n".join(table_lines(rows)))
        path = write_class_csv(Path(evaluation.config.checkpoint.output_dir), rows)
        print(f"=> {len(rows)} classes in {path}")
    if wanted.report_file is not None:
        target = Path(wanted.report_file)
        write_report(target, content_of(evaluation))
        print(f"=> report in {target}")
