"""Files for the C++ runner (--data_path FOLDER), faults of a data set (--check DATA), augmented images (--preview)."""

from src.startup import run


def main(argv: list[str]) -> None:
    """Read the flags; write the runner's files, check a data set, or draw training batches."""
    from src.deploy.runner_inputs import PreviewRequest, preprocess, read_command_line
    from src.schema import CheckConfig

    request = read_command_line(argv)
    if isinstance(request, CheckConfig):
        from src.data.check import check

        check(request)
    elif isinstance(request, PreviewRequest):
        from src.data.preview import preview
        from src.models import resolved

        preview(resolved(request.config), request.target)
    else:
        preprocess(request)


if __name__ == "__main__":
    run(main)
