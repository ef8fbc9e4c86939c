"""Measurements of this project against its peers, interleaved on one machine.

    settings  what a user can ask for            cases   the models that are measured, and at which batch size
    runner    starts both workers, lets them run in turns           table   medians, ratios, the printed table
    own_worker, peer_worker, serving, peers      the processes that do the work, one per side

The peer's process may run in another environment: `peer_worker`, `serving` and `peers` import nothing but the standard
library, torch and timm.
"""
