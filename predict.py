"""Classes of images: ``python predict.py --pretrained FILE | --mindir FILE | --onnx FILE PATH ...``, or ``--serve``."""

from src.startup import run


def main(argv: list[str]) -> None:
    """Read the command line; predict, or serve a page that does."""
    from src.report.predict_settings import read_command_line

    request = read_command_line(argv)
    if request.settings.serve:
        from src.report.server import serve

        serve(request)
    else:
        from src.report.prediction import predict

        predict(request)


if __name__ == "__main__":
    run(main)
