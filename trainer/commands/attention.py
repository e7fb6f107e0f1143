"""pmeta-train attention: what adaptation updates, and how alike samples are in it, as a picture (Fig. 5)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pmeta.codegen.errors import DataError
from pmeta.codegen.report.text import count_text
from pmeta.trainer.commands.common import (
    TEST_SEED,
    DataOptions,
    Device,
    DeviceOption,
    PathOption,
    SplitName,
    SplitOption,
    check_file,
    console,
    progress_bar,
    torch_device,
)
from pmeta.trainer.commands.evaluate import trained_for
from pmeta.trainer.commands.model_tasks import test_tasks


def attention(
    model: Annotated[Path, typer.Argument(help="What pmeta-train wrote.")],
    out: Annotated[Path | None, typer.Option(help="The PNG file to write.")] = None,
    data: Annotated[str | None, typer.Option(help="Data set; default: the one it was trained on.")] = None,
    path: PathOption = None,
    option: DataOptions = None,
    tasks: Annotated[int, typer.Option(min=1, help="How many tasks.")] = 100,
    split: SplitOption = SplitName.TEST,
    shots: Annotated[int | None, typer.Option(min=1, help="Support samples per class; default: as trained.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which tasks, and which pairs of samples.")] = TEST_SEED,
    device: DeviceOption = Device.AUTO,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as one JSON object.")] = False,
) -> None:
    """Show how much of each layer adaptation updates in each step, and how alike samples are in what they update."""
    torch_on = torch_device(device)
    from pmeta.trainer.channel_picture import save_picture
    from pmeta.trainer.channel_statistics import channel_statistics
    from pmeta.trainer.trained import load_trained

    if out is not None:
        check_file(out)
    loaded = load_trained(model, torch_on)
    name, drawn = test_tasks(trained_for(loaded), data, path, option, split, None, shots, 1, tasks, seed)
    with progress_bar() as progress:
        bar = progress.add_task("adapting", total=tasks, note="")
        found = channel_statistics(loaded, drawn, seed, lambda count: progress.advance(bar, count))
    if out is not None:
        try:
            save_picture(found, out)
        except OSError as error:
            raise DataError(f"cannot be written ({error.strerror})", str(out), "choose another --out") from error
        console.print(f"{out}: {count_text(tasks, 'task')} of {name}", markup=False, soft_wrap=True)
    if as_json:
        print(json.dumps({"data": name, "split": split.value, "seed": seed} | found.as_dict()))
    elif out is None:
        width = max(map(len, found.layers))
        for number, layer in enumerate(found.layers):
            shares = "  ".join(f"{100 * step[number]:5.1f} %" for step in found.ratio_mean)
            print(f"{layer:{width}}  {shares}")
