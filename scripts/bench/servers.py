#!/usr/bin/env python
"""Several vLLM servers against the first of them: the rollouts of a step, in turn, with the same tokens.

    python scripts/bench/servers.py --engine.type vllm --engine.server http://127.0.0.1:8000 http://127.0.0.1:8001

Takes flags of `backtrack-mrt train`. Wall seconds: the servers work in processes of their own.
"""

from __future__ import annotations

import argparse
import time

from step import rows_of_step
from timing import spread

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.errors import RunError, UserError, run_main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each way is timed")
    options, flags = parser.parse_known_args()
    config = read_request(flags).config
    addresses = config.engine.server or []
    if len(addresses) < 2:
        raise UserError("engine.server", addresses, "one is to be compared with several", "Name two or more.")

    from backtrack_mrt.rollouts.assembly import assemble  # late: a mistake in the config must not wait for torch

    asked, counts = rows_of_step(config), (1, len(addresses))
    collectors, seconds = {}, {count: list[float]() for count in counts}
    for count in counts:
        engine = config.engine.model_copy(update={"server": addresses[:count]})
        collectors[count] = assemble(config.model_copy(update={"engine": engine})).training_collector()
    drawn = set[tuple[tuple[int, ...], ...]]()
    for number in range(options.rounds + 1):
        for count in counts if number % 2 == 0 else counts[::-1]:
            start = time.perf_counter()
            found = collectors[count].collect(*asked, config.training.temperature)
            seconds[count].append(time.perf_counter() - start)
            drawn.add(tuple(member.trajectory.token_ids for member in found.scored))
    if len(drawn) > 1:
        raise RunError("servers draw other tokens than one of them", "Start all with the same settings")
    rows = config.training.rows
    for count in counts:
        print(f"servers: {count}: {spread([rows / each for each in seconds[count][1:]])} trajectories a second")
    print(f"{counts[1]} / 1: {spread([a / b for a, b in zip(*(seconds[n][1:] for n in counts), strict=True)])}")


if __name__ == "__main__":
    run_main(main)
