"""Training runs: reproducible, resumable, with exact zeros, exported without loss."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch.utils._pytree import tree_leaves, tree_map  # noqa: E402

from pmeta.codegen.errors import ConfigError, DataError, PmetaError  # noqa: E402
from pmeta.codegen.modelfile import load_model, save_model  # noqa: E402
from pmeta.trainer.commands.train import stopped  # noqa: E402
from pmeta.trainer.config import Config, config_from_dict  # noqa: E402
from pmeta.trainer.datasets.base import ClassSamples  # noqa: E402
from pmeta.trainer.evaluation import evaluate, task_batch  # noqa: E402
from pmeta.trainer.export import from_model  # noqa: E402
from pmeta.trainer.lasso import activation_shares  # noqa: E402
from pmeta.trainer.logbook import Logbook  # noqa: E402
from pmeta.trainer.meta_learner import MetaLearner  # noqa: E402
from pmeta.trainer.methods import METHODS  # noqa: E402
from pmeta.trainer.objective import accuracies  # noqa: E402
from pmeta.trainer.tasks import fixed_tasks  # noqa: E402
from pmeta.trainer.training import Training  # noqa: E402

pytestmark = pytest.mark.unit
CPU = torch.device("cpu")


def images(seed: int, classes: int = 8, per_class: int = 6) -> ClassSamples:
    """Classes that differ in where they are bright, with noise."""
    rng = np.random.default_rng(seed)
    bright = rng.random((classes, 1, 1, 4, 4)).repeat(4, 3).repeat(4, 4) > 0.5
    pixels = bright * 150 + rng.integers(0, 100, (classes, per_class, 1, 16, 16))
    labels = np.arange(classes, dtype=np.int64).repeat(per_class)
    return ClassSamples(pixels.astype(np.uint8).reshape(-1, 1, 16, 16), labels, tuple(f"c{i}" for i in range(classes)))


def config(**changes: dict[str, Any]) -> Config:
    table: dict[str, dict[str, Any]] = {
        "task": {"ways": 3, "shots": 2, "queries": 2},
        "network": {"width": 4, "groups": 2, "blocks": 2},
        "method": {"name": "p-meta-3.2+3.3", "steps": 2, "alpha": 0.2},
        "training": {
            "iterations": 6, "tasks_per_batch": 2, "learning_rate": 0.01, "validate_every": 2,
            "validation_tasks": 4, "checkpoint_every": 3, "multi_step_iterations": 3,
        },
        "augmentation": {"shift": 1, "rotate_classes": True, "flip_classes": True},
    }  # fmt: skip
    return config_from_dict({key: table.get(key, {}) | changes.get(key, {}) for key in table | changes}, "test")


def training(run_dir: Path, settings: Config | None = None) -> Training:
    return Training(settings or config(), images(0), images(1), run_dir, CPU)


def curve(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "curve.jsonl").read_text().splitlines()]


class Interrupted(Exception):
    """Stands for a crash."""


def stop_after(iteration: int) -> Any:
    def show(progress: Any) -> None:
        if progress.iteration == iteration:
            raise Interrupted

    return show


@pytest.mark.parametrize("damage", [b"{]}", b"\xff}", b'{"loss": 1}', b'{"iteration": null}', b'{"iteration": {}}'])
def test_a_damaged_curve_is_no_traceback(tmp_path: Path, damage: bytes) -> None:
    content = b'{"iteration": 1}\n' + damage + b"\n"
    (tmp_path / "curve.jsonl").write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        Logbook(tmp_path, 3)
    assert (tmp_path / "curve.jsonl").read_bytes() == content


# --- reproducibility -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("crash", [3, 4], ids=["at a checkpoint", "after one"])
def test_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, crash: int) -> None:
    whole = training(tmp_path / "whole")
    model = whole.run()
    with pytest.raises(Interrupted):
        training(tmp_path / "parts").run(stop_after(crash))
    resumed = training(tmp_path / "parts")
    resumed.resume()
    assert resumed.iteration == 3
    again = resumed.run()
    assert curve(tmp_path / "whole") == curve(tmp_path / "parts")
    assert again.graph.same_as(model.graph)
    assert again.adaptation.alpha.tobytes() == model.adaptation.alpha.tobytes()
    for mine, theirs in zip(tree_leaves(resumed._learner.meta), tree_leaves(whole._learner.meta), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupt_saves_the_finished_iteration(number: signal.Signals, tmp_path: Path) -> None:
    def press(progress: Any) -> None:
        if progress.iteration == 1:
            os.kill(os.getpid(), number)

    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    run = training(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run.run(press)
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert stopped(run).startswith(f"stopped after iteration {run.iteration}, saved in {tmp_path}")
    resumed = training(tmp_path)
    resumed.resume()
    assert resumed.iteration == run.iteration in (1, 2)


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (1, "stopped at once, in iteration 2: nothing is saved"),
        (4, "stopped at once, in iteration 5; iteration 3 is saved in "),
    ],
)
def test_a_second_interrupt_stops_at_once_and_says_what_is_saved(at: int, said: str, tmp_path: Path) -> None:
    def press_twice(progress: Any) -> None:
        if progress.iteration == at:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    run = training(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run.run(press_twice)
    assert stopped(run).startswith(said)
    assert run.checkpoint_path.exists() == ("nothing" not in said)


def test_resuming_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"checkpoint\.pt: there is no checkpoint; start without --resume"):
        training(tmp_path).resume()


@pytest.mark.parametrize(
    "change",
    [
        {"iteration": -5},
        {"iteration": 10**9},
        {"iteration": "x"},
        {"best": None},
        {"best": {}},
        {"best": {"accuracy": -1.0}},
        {"learner": {}},
        {"learner": None},
    ],
    ids=str,
)
def test_a_checkpoint_that_holds_something_else_is_damaged(change: dict[str, Any], tmp_path: Path) -> None:
    training(tmp_path).run()
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    torch.save(content | change, tmp_path / "checkpoint.pt")
    with pytest.raises(DataError, match=r"checkpoint\.pt: is damaged; start the training again"):
        training(tmp_path).resume()


def test_resume_refuses_what_does_not_belong(tmp_path: Path) -> None:
    training(tmp_path).run()
    other = training(tmp_path, config(training={"seed": 5}))
    with pytest.raises(DataError, match="belongs to another configuration"):
        other.resume()
    for train, validation in ((3, 1), (0, 3)):
        with pytest.raises(DataError, match="belongs to another data set"):
            Training(config(), images(train), images(validation), tmp_path, CPU).resume()
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert content["versions"].keys() == {"pmeta", "python", "torch"}
    for stored in (None, {"task": 3}, {"task": {"wais": 3}}):
        torch.save(content | {"config": stored}, tmp_path / "checkpoint.pt")
        with pytest.raises(DataError, match="belongs to another configuration"):
            training(tmp_path).resume()
    (tmp_path / "checkpoint.pt").write_bytes(b"garbage")
    with pytest.raises(DataError, match="is not a checkpoint"):
        training(tmp_path).resume()
    (tmp_path / "folder" / "checkpoint.pt").mkdir(parents=True)
    with pytest.raises(DataError, match="cannot be read"):
        training(tmp_path / "folder").resume()


def test_a_checkpoint_of_before_a_setting_existed_is_resumed(tmp_path: Path) -> None:
    training(tmp_path).run()
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del content["config"]["augmentation"]["shear"]  # its default is what the run was made with
    torch.save(content, tmp_path / "checkpoint.pt")
    training(tmp_path).resume()


# --- step sizes ----------------------------------------------------------------------------------------------


def steps(settings: Config, count: int) -> tuple[MetaLearner, list[Any]]:
    """A learner after `count` outer steps on fixed tasks, and the steps' reports."""
    learner = MetaLearner(settings, (1, 16, 16), CPU)
    tasks = fixed_tasks(images(0), 3, 2, 2, 2, seed=0)
    batch = task_batch(tasks, _encoding(), CPU)
    return learner, [learner.step(batch, i) for i in range(count)]


def _encoding() -> Any:
    from pmeta.trainer.config import InputConfig
    from pmeta.trainer.encoding import input_encoding

    return input_encoding(InputConfig((0.01,), (-0.7,)), images(0))


def test_a_high_price_brings_exact_zeros_that_stay() -> None:
    settings = config(method={"name": "p-meta-3.2", "penalty": 1000.0, "alpha": 0.03})
    learner, reports = steps(settings, 6)
    assert torch.equal(learner.meta["alpha"], torch.zeros_like(learner.meta["alpha"]))
    assert reports[-1].zeros == learner.meta["alpha"].numel()
    assert all(report.reentries == 0 for report in reports)


def test_the_price_is_the_same_at_zero_as_above() -> None:
    """Its slope is λ·m(x_{l-1}) for every step size that may learn, or zeros would flicker."""
    gradients = []
    for penalty in (0.0, 3.0):
        learner = MetaLearner(config(method={"penalty": penalty, "frozen_layers": ["conv1"]}), (1, 16, 16), CPU)
        learner.meta["alpha"][1:3, 0] = 0.0
        learner.step(task_batch(fixed_tasks(images(0), 3, 2, 2, 2, seed=0), _encoding(), CPU), 0)
        gradients.append(learner.meta["alpha"].grad)
    shares = activation_shares(learner.graph)[:, None].repeat(1, 2)
    shares[0] = 0.0  # frozen
    torch.testing.assert_close(gradients[1] - gradients[0], 3.0 * shares, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("penalty", "exported"), [(0.0, (0.0019, 0.0021)), (3.0, (0.0, 0.0021))])
def test_negligible_step_sizes_are_not_exported(penalty: float, exported: tuple[float, float], tmp_path: Path) -> None:
    """Under 1 % of where they start, if they have a price; training itself goes on from them."""
    run = training(tmp_path, config(method={"penalty": penalty}))
    alpha = run._learner.meta["alpha"]
    with torch.no_grad():
        alpha[0] = torch.tensor([0.0019, 0.0021])
    with Logbook(tmp_path, 0) as logbook:
        run._validate(logbook)
    assert run.best_model().adaptation.alpha[0].tolist() == pytest.approx(exported)
    assert curve(tmp_path)[0]["alpha/conv1/step1"] == pytest.approx(exported[0])
    assert alpha[0].tolist() == pytest.approx([0.0019, 0.0021])


def test_without_price_step_sizes_move_and_stay_positive() -> None:
    learner, reports = steps(config(method={"name": "maml++"}), 3)
    assert (learner.meta["alpha"] > 0).all() and learner.meta["alpha"].std() > 0
    assert reports[-1].zeros == 0 and learner.meta["attention"] == {}


def test_maml_keeps_its_step_sizes() -> None:
    learner, _ = steps(config(method={"name": "maml"}), 3)
    assert torch.equal(learner.meta["alpha"], torch.full_like(learner.meta["alpha"], 0.2))


def test_frozen_layers_stay_at_zero_and_have_no_attention() -> None:
    frozen = ["conv1", "norm2"]
    learner, _ = steps(config(method={"frozen_layers": frozen}), 3)
    for layer, row in zip(learner.graph.layers, learner.meta["alpha"], strict=True):
        assert bool((row == 0).all()) == (layer.name in frozen)
    assert set(learner.meta["attention"]) == {"norm1", "conv2"}


@pytest.mark.parametrize(
    ("name", "learning"), [("anil", {"fc"}), ("boil", {"conv1", "norm1", "conv2", "norm2"}), ("maml", None)]
)
def test_which_layers_a_method_lets_learn(name: str, learning: set[str] | None) -> None:
    learner, _ = steps(config(method={"name": name}), 2)
    for layer, row in zip(learner.graph.layers, learner.meta["alpha"], strict=True):
        assert torch.equal(row, torch.full_like(row, 0.2 if learning is None or layer.name in learning else 0.0))


def test_nothing_left_to_learn_is_refused() -> None:
    with pytest.raises(ConfigError, match="no layer is left to learn"):
        MetaLearner(config(method={"name": "anil", "frozen_layers": ["fc"]}), (1, 16, 16), CPU)


@pytest.mark.parametrize(("attention", "directions"), [("forward", {"fw"}), ("backward", {"bw"})])
def test_attention_in_one_direction(attention: str, directions: set[str], tmp_path: Path) -> None:
    model = training(tmp_path, config(method={"attention": attention})).run()
    assert model.adaptation.attention
    for modules in model.adaptation.attention.values():
        assert {name for name in ("fw", "bw") if getattr(modules, name) is not None} == directions


def test_derivative_order_annealing_begins_with_first_order() -> None:
    """The first iteration is that of the first-order method, the second is not."""
    gradients = {}
    for name, settings in {
        "annealed": {"training": {"first_order_iterations": 1}},
        "first": {"method": {"first_order": True}},
        "second": {},
    }.items():
        learner = MetaLearner(config(**settings), (1, 16, 16), CPU)
        batch = task_batch(fixed_tasks(images(0), 3, 2, 2, 2, seed=0), _encoding(), CPU)
        for iteration in range(2):
            learner.load_state(MetaLearner(config(), (1, 16, 16), CPU).state())
            learner.step(batch, iteration)
            gradients[name, iteration] = learner.meta["weights"]["conv1.weight"].grad.clone()
    for iteration, same, other in ((0, "first", "second"), (1, "second", "first")):
        assert torch.equal(gradients["annealed", iteration], gradients[same, iteration])
        assert not torch.equal(gradients["annealed", iteration], gradients[other, iteration])


def test_step_sizes_per_channel_are_learned_and_stay_positive() -> None:
    settings = config(method={"name": "p-meta-3.2+alpha-ch"}, training={"learning_rate": 0.6})
    learner, _ = steps(settings, 4)
    rates = learner.meta["channel_alpha"]
    assert {name: {side: len(r) for side, r in sides.items()} for name, sides in rates.items()} == {
        "conv1": {"in": 1, "out": 4}, "norm1": {"in": 4, "out": 4}, "conv2": {"in": 4, "out": 4},
        "norm2": {"in": 4, "out": 4}, "fc": {"in": 64, "out": 3},
    }  # fmt: skip
    leaves = torch.cat(tree_leaves(rates))
    assert (leaves >= 0).all() and (leaves == 0).any() and leaves.std() > 0.1


def test_an_unknown_frozen_layer_is_named() -> None:
    with pytest.raises(ConfigError, match="'conv9', which is no layer; use some of conv1, norm1"):
        MetaLearner(config(method={"frozen_layers": ["conv9"]}), (1, 16, 16), CPU)


def test_the_loss_falls_on_a_fixed_batch() -> None:
    _, reports = steps(config(training={"multi_step_iterations": 0, "iterations": 40}), 40)
    assert reports[-1].loss < 0.6 * reports[0].loss


def test_validation_samples_of_another_kind_are_refused_before_training(tmp_path: Path) -> None:
    larger = replace(images(1), samples=np.zeros((48, 1, 12, 12), np.uint8))
    with pytest.raises(DataError, match=r"training samples of uint8 .* but validation samples of uint8 \(1, 12, 12\)"):
        Training(config(), images(0), larger, tmp_path, torch.device("cpu"))


def test_divergence_is_one_line(tmp_path: Path) -> None:
    run = training(tmp_path, config(method={"alpha": 1e38}))
    with pytest.raises(PmetaError, match="no longer finite"):
        run.run()


# --- evaluation ----------------------------------------------------------------------------------------------


def test_validation_adapts_in_the_devices_micro_batches(tmp_path: Path) -> None:
    """Attention sees one sample at a time there, and the whole support set in training."""
    run = training(tmp_path)
    run.run()
    inner, meta = run._learner.inner, run._learner.meta
    loss = {size: evaluate(inner, meta, run._validation_tasks, run._encoding, size, CPU).loss for size in (1, 6)}
    assert loss[1] != loss[6]
    validations = [line for line in curve(tmp_path) if "validation/query_loss" in line]
    assert validations[-1]["validation/query_loss"] == loss[1]


def test_intervals_are_196_standard_errors() -> None:
    learner, _ = steps(config(), 1)
    tasks = fixed_tasks(images(1), 3, 1, 2, 9, seed=0)
    result = evaluate(learner.inner, learner.meta, tasks, _encoding(), 1, CPU)
    before, after, _ = accuracies(learner.inner, learner.meta, task_batch(tasks, _encoding(), CPU), 1)
    for values, mean, interval in (
        (before, result.before, result.before_interval),
        (after, result.after, result.after_interval),
    ):
        assert mean == pytest.approx(values.double().mean().item())
        assert interval == pytest.approx(1.96 * values.double().std().item() / 3)
    assert result.after_interval > 0


# --- export --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_exported_model_computes_the_same(method: str, tmp_path: Path) -> None:
    run = training(tmp_path / "run", config(method={"name": method, "alpha": 0.2}))
    save_model(run.run(), tmp_path / "model.onnx")
    model = load_model(tmp_path / "model.onnx")
    inner, meta = from_model(model, CPU)
    tasks = fixed_tasks(images(2), 3, 2, 2, 4, seed=0)
    encoding = model.adaptation.encoding
    batch = task_batch(tasks, encoding, CPU)
    trained = tree_map(lambda t: t, run._best["meta"])
    original, exported = (
        loop.network.forward(loop.adapt(parameters, batch.support_x[0], batch.support_y[0], 1), batch.query_x[0])
        for loop, parameters in ((run._learner.inner, trained), (inner, meta))
    )
    assert torch.equal(original, exported)
    assert evaluate(inner, meta, tasks, encoding, 1, CPU) == evaluate(
        run._learner.inner, trained, tasks, encoding, 1, CPU
    )


def test_exported_record_says_how_it_was_trained(tmp_path: Path) -> None:
    model = training(tmp_path).run()
    record = model.adaptation.training
    assert record["config"] == config().as_dict()
    assert record["device"] == "CPU" and len(record["data_sha256"]) == 64
    assert 0 <= record["validation_accuracy"] <= 1
    assert model.adaptation.method == "p-meta-3.2+3.3"
    assert set(model.adaptation.attention) <= {"conv1", "norm1", "conv2", "norm2"}


def test_attention_of_layers_that_never_learn_is_not_exported(tmp_path: Path) -> None:
    settings = config(method={"penalty": 1e6, "alpha": 0.01}, training={"multi_step_iterations": 0})
    run = training(tmp_path, replace(settings, training=replace(settings.training, validate_every=6)))
    model = run.run()
    assert not model.adaptation.alpha.any() and not model.adaptation.attention


def test_onnxruntime_agrees_with_torch(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = training(tmp_path / "run").run()
    save_model(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    inner, meta = from_model(model, CPU)
    x = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = inner.network.forward(meta["weights"], x)
    (logits,) = session.run(None, {model.graph.input: x.numpy()})
    np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-4, atol=1e-5)
