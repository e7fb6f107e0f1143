"""Outer iterations per second of the trainer: 5-way 5-shot, K = 5, 4Conv-16 on 28x28, random images.

python -m benchmarks.trainer_speed [--device cuda] [--iterations 20]
"""

from __future__ import annotations

import argparse
import os
import time
from itertools import product

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from torch.utils._pytree import tree_leaves

from pmeta.trainer.config import Config, config_from_dict
from pmeta.trainer.meta_learner import MetaLearner
from pmeta.trainer.objective import TaskBatch

INPUT_SHAPE = (1, 28, 28)


def configuration(tasks: int, convolution: str, cuda_graph: bool) -> Config:
    training = {"tasks_per_batch": tasks, "convolution": convolution, "cuda_graph": cuda_graph, "clip_norm": 0}
    return config_from_dict({"training": training}, "benchmark")


def random_tasks(config: Config, device: torch.device) -> TaskBatch:
    generator = torch.Generator().manual_seed(0)

    def samples(per_class: int) -> tuple[torch.Tensor, torch.Tensor]:
        count = config.task.ways * per_class
        x = torch.randn(config.training.tasks_per_batch, count, *INPUT_SHAPE, generator=generator).to(device)
        y = torch.eye(config.task.ways, device=device).repeat_interleave(per_class, 0)
        return x, y.expand(config.training.tasks_per_batch, -1, -1)

    return TaskBatch(*samples(config.task.shots), *samples(config.task.queries))


def measure(config: Config, device: torch.device, iterations: int) -> tuple[float, float]:
    """(iterations per second, norm of the first step's meta-gradient)."""
    learner = MetaLearner(config, INPUT_SHAPE, device)
    tasks = random_tasks(config, device)
    learner.step(tasks, 0)  # on a GPU: captures
    norm = torch.cat([leaf.grad.flatten() for leaf in tree_leaves(learner.meta)]).norm().item()
    learner.step(tasks, 0)
    start = time.perf_counter()
    for _ in range(iterations):
        learner.step(tasks, 0)  # ends with a wait for the device
    return iterations / (time.perf_counter() - start), norm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--iterations", type=int, default=20)
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}")
    # Within one number of tasks all rows compute the same: the norms must agree but for rounding.
    print("tasks  convolution  CUDA graph  iterations/s  gradient norm")
    graphs = (False, True) if device.type == "cuda" else (False,)
    for tasks, convolution, graph in product((4, 16), ("direct", "matmul"), graphs):
        speed, norm = measure(configuration(tasks, convolution, graph), device, options.iterations)
        print(f"{tasks:5}  {convolution:11}  {'yes' if graph else 'no':10}  {speed:12.2f}  {norm:13.6f}", flush=True)


if __name__ == "__main__":
    main()
