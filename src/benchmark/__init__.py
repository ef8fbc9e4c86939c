"""Measurements of this project against its peers, interleaved on one machine.

    settings  what a user can ask for            cases   the models that are measured, and at which batch size
    runner    starts both workers, lets them run in turns           table   medians, ratios, the printed table
    own_worker, peer_worker, serving, peers      the processes that do the work, one per side

    engine_runner, engine_worker, engine_parts, engine_table
              what train.py's loop adds to the bare step, and what options of the step cost; no peer

    data_runner, data_cases, data_images, own_data_worker, own_pipelines, peer_data_worker, peer_pipelines
              the same for input pipelines instead of networks

    deploy_runner, mindspore_worker, lite_worker, onnx_worker
              exported files: the C++ runner, ONNX Runtime and MindSpore itself

The peer's process may run in another environment: `peer_worker`, `peers`, `peer_data_worker`, `peer_pipelines` and
`serving` import nothing but the standard library, torch, torchvision and timm, and what those need.
"""
