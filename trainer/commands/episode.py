"""pmeta-train episode: a few-shot task as a picture. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pmeta.codegen.errors import BuildError
from pmeta.codegen.files import replacement
from pmeta.trainer.commands.common import DataOptions, PathOption, SplitName, SplitOption, console, data_set

QUERIES = 5  # per class, where there are so many


def episode(
    out: Annotated[Path, typer.Option(help="The PNG file to write.")],
    data: Annotated[str, typer.Option(help="Data set; see pmeta-train datasets.")] = "icons",
    path: PathOption = None,
    option: DataOptions = None,
    split: SplitOption = SplitName.TEST,
    ways: Annotated[int, typer.Option(min=2, max=256, help="Classes.")] = 5,
    shots: Annotated[int, typer.Option(min=1, max=100, help="Support samples per class.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Which episode.")] = 0,
) -> None:
    """Draw a task of a data set as a picture: what is learned from, and what is asked."""
    import numpy as np

    from pmeta.trainer.datasets.episodes import most_queries, sample_episode

    try:
        from pmeta.trainer.datasets.picture import draw_episode
    except ImportError as error:
        todo = "run: pip install pillow"
        raise BuildError("Pillow is not installed", "pmeta-train episode", todo) from error
    source = data_set(data, path, option)
    samples, part = source.load(split.value), f"{data}'s {split.value} split"
    queries = most_queries(samples, ways, shots, QUERIES, part)
    drawn = sample_episode(samples, ways, shots, queries, np.random.default_rng(seed), part)
    picture = draw_episode(drawn, background=source.background)
    with replacement(out) as temporary:
        picture.save(temporary, format="PNG", optimize=True)
    console.print(f"{out}: {', '.join(drawn.class_names)}", markup=False, soft_wrap=True)
