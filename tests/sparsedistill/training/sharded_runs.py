"""A run of a DAN in one process, and the same with the rows of its table in several.

The processes are started by the spawn method and find each other by a file; nothing leaves the
machine.
"""

import multiprocessing
import os
import traceback
from datetime import timedelta

import numpy as np
from helpers.random_bags import random_bags

from sparsedistill.objectives import Soft
from sparsedistill.students import DAN, DANShape, StudentTraining
from sparsedistill.targets import Targets
from sparsedistill.training.loop import Checkpointing, Examples, fit
from sparsedistill.training.recipe import TrainingRecipe

ROWS, CLASSES = 301, 3
RECIPE = TrainingRecipe(batch_size=16, learning_rate=0.02, updates=30, evaluate_every=10)
SECONDS = 90


class Killed(BaseException):
    """No handler of errors may see it."""


def examples(count, *, seed):
    rng = np.random.default_rng(seed)
    bags = random_bags(rng, count, ROWS)
    logits = rng.standard_normal((count, CLASSES)).astype(np.float32)
    return Examples(bags, Targets(logits=logits, labels=logits.argmax(axis=1)))


def run(make_table=None, *, shape=None, training=None, directory=None, killed_after=None):
    """Train; what came of it, plain arrays."""
    student = DAN(
        DANShape(ROWS, 12, 10, CLASSES, "relu", 0.5, **(shape or {})),
        training=StudentTraining(**(training or {})),
        table=make_table,
        threads=2,
    )
    losses = []

    def progress(done, total):
        if done == killed_after:
            raise Killed

    start = {name: value.copy() for name, value in student.weights().items()}
    try:
        result = fit(
            student,
            examples(100, seed=0),
            Soft(),
            RECIPE,
            dev=examples(60, seed=1),
            seed=5,
            checkpointing=directory and Checkpointing(directory, every_seconds=0),
            progress=progress,
            watch=lambda point: losses.append(point.loss),
        )
    except Killed:
        return {}
    found = {f"start/{name}": value for name, value in start.items()}
    found |= {f"end/{name}": value for name, value in student.weights().items()}
    found |= {f"state/{name}": value for name, value in student.optimiser_state().items()}
    found["logits"] = student.predict(examples(60, seed=1).inputs)
    return found | {"losses": np.array(losses), "best": np.array(result.best_update)}


def run_in_processes(count, meeting, **how):
    """What `run` returns, with the rows of the table in so many processes."""
    context = multiprocessing.get_context("spawn")
    said = context.Queue()
    processes = [
        context.Process(target=_member, args=(rank, count, str(meeting), said, how))
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    try:
        rank, found = said.get(timeout=SECONDS)
        for process in processes:
            process.join(SECONDS)
        assert (rank, [process.exitcode for process in processes]) == (0, [0] * count), found
    finally:
        for process in processes:
            process.kill()
    return found


def _member(rank, count, meeting, said, how):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    import torch
    import torch.distributed as dist

    from sparsedistill.training.sharded_table import train_in_processes

    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{meeting}/group",
            rank=rank,
            world_size=count,
            timeout=timedelta(seconds=SECONDS),
        )
        found = train_in_processes(lambda make_table: run(make_table, **how), threads=2)
        dist.destroy_process_group()
        if rank == 0:
            said.put((0, found))
        code = 0
    except BaseException:
        said.put((rank, traceback.format_exc()))
        code = 1
    said.close()
    said.join_thread()
    # An interpreter that ends in order is, once in many times, aborted by threads of torch's that
    # still hold a tensor (pytorch issue 190489).
    os._exit(code)
