"""Measure this project against a peer: ``python benchmark.py infer|train|data|deploy [--arch CASE,...] [--key value]``.

``train --breakdown True`` measures the training loop against its own bare step instead.
"""

from src.startup import run


def main(argv: list[str]) -> None:
    """Read the mode and the flags, measure, print the table."""
    from src.benchmark.data_runner import benchmark_data
    from src.benchmark.deploy_runner import benchmark_deploy
    from src.benchmark.engine_runner import benchmark_engine
    from src.benchmark.runner import benchmark
    from src.benchmark.settings import read_command_line

    mode, config = read_command_line(argv)
    if mode == "data":
        benchmark_data(config)
    elif mode == "deploy":
        benchmark_deploy(config)
    elif config.breakdown:
        benchmark_engine(config)
    else:
        benchmark(mode, config)


if __name__ == "__main__":
    run(main)
