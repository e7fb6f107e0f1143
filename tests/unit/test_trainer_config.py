"""Configurations: every mistake is one line that names the file and the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmeta.codegen.errors import ConfigError
from pmeta.trainer.config import config_from_dict, load_config
from pmeta.trainer.methods import METHODS

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_a_choice_of_settings(name: str) -> None:
    method = config_from_dict({"method": {"name": name}}, "test").method
    assert {key: getattr(method, key) for key in METHODS[name]} == METHODS[name]


def test_a_given_setting_beats_the_method() -> None:
    method = config_from_dict({"method": {"name": "maml++", "penalty": 1}}, "test").method
    assert method.penalty == 1.0 and method.learn_alpha is True


def test_what_a_setting_leaves_without_effect_is_off() -> None:
    method = config_from_dict({"method": {"learn_alpha": False, "layers": "last"}}, "test").method
    assert (method.name, method.penalty, method.attention) == ("p-meta-3.2+3.3", 0.0, "none")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[training]\niteration = 3", ["unknown key 'training.iteration'", "did you mean 'training.iterations'"]),
        ("[trainig]\nseed = 3", ["unknown key 'trainig'", "did you mean 'training'"]),
        ("[task]\nfoo = 3", ["unknown key 'task.foo'", "ways, shots, queries"]),
        ("training = 3", ["'training' must be a table"]),
        ("[training]\niterations = 2.5", ["'training.iterations' is 2.5, expected an int"]),
        ("[training]\niterations = true", ["'training.iterations' is True"]),
        ("[training]\ncuda_graph = 1", ["'training.cuda_graph' is 1, expected a bool"]),
        ("[method]\nname = 'mamal'", ["unknown method.name 'mamal'", "did you mean 'maml"]),
        (
            "[method]\nattention = 'foward'",
            ["'method.attention' is 'foward'; use one of none, forward, backward, both"],
        ),
        ("[method]\nlayers = 1", ["'method.layers' is 1; use one of all, last, body"]),
        ("[method]\nfrozen_layers = 'conv1'", ["'method.frozen_layers' must be a list"]),
        ("[method]\nrho_fw = 1000", ["'method.rho_fw' is 1000, but must be 0 to 999"]),
        (
            "[method]\nname = 'maml'\npenalty = 1",
            ["'method.penalty' is 1.0, but must be 0 where method.learn_alpha is"],
        ),
        ("[method]\nname = 'anil'\nattention = 'both'", ["'method.attention' is 'both', but must be none where only"]),
        ("[network]\ngroups = 5", ["network.groups is 5, but must be a divisor of width = 16"]),
        ("[task]\nways = 1", ["'task.ways' is 1"]),
        ("[training]\nlearning_rate = nan", ["'training.learning_rate' is nan"]),
        ("[training]\nfinal_learning_rate = 1", ["'training.final_learning_rate' is 1.0"]),
        ("[training", ["is not valid TOML"]),
        ("x = " + "[" * 100_000, ["is not valid TOML (nested too deeply)"]),
        ("[method]\nsteps = 1_000_000_000", ["'method.steps' is 1000000000, but must be 1 to 64"]),
        ("[method]\nalpha = 1e300", ["'method.alpha' is 1e+300, but must be 0 to 3e38"]),
        ("[network]\nwidth = 1_000_000", ["network.width is 1000000, but must be 1 to 4,096"]),
        ("[training]\ntasks_per_batch = 1_000_000", ["'training.tasks_per_batch' is 1000000"]),
        ("[training]\nvalidation_tasks = 1_000_000_000", ["'training.validation_tasks' is 1000000000"]),
        ("[training]\nalpha_learning_rate = inf", ["'training.alpha_learning_rate' is inf"]),
        ("[training]\nmulti_step_iterations = -1", ["'training.multi_step_iterations' is -1, but must be 0 to"]),
        (f"[augmentation]\nshift = {10**30}", ["'augmentation.shift' is 1000", "but must be 0 to 1,000"]),
        ("[input]\nscale = 1\noffset = nan", ["'input.offset' is (nan,)"]),
        ("[input]\nscale = [1e300]\noffset = 0", ["'input.scale' is (1e+300,)"]),
        ("[input]\nscale = [1, 2]\noffset = 0", ["'input.offset' is (0.0,), but must be as many numbers"]),
        ("[input]\nscale = 'x'\noffset = 0", ["'input.scale' must be a list"]),
        ("[augmentation]\nzoom = 1", ["'augmentation.zoom' is 1.0, but must be 0 to 0.9"]),
        ("[task]\nsame_family = 2", ["'task.same_family' is 2.0, but must be 0 to 1"]),
        ("[augmentation]\nbend = -1", ["'augmentation.bend' is -1.0, but must be 0 to 1,000 pixels"]),
        ("[augmentation]\nclass_bend = inf", ["'augmentation.class_bend' is inf, but must be 0 to"]),
        ("data = 'icons'", ["'data' must be a table", "[data]"]),
        ("network = 'mlp'", ["'network' must be a table", "[network]"]),
        ("[data]\nname = 'icon'", ["unknown data.name 'icon'", "did you mean 'icons'?"]),
        ("[data]\nname = 'omniglot'\nsizes = 3", ["unknown key 'data.sizes'", "did you mean 'data.size'"]),
        ("[data]\nname = 'omniglot'\ntest = 'x'", ["'data.test' is 'x'", "use one of evaluation, held-back"]),
        ("[data]\nname = 'omniglot'\nsize = 0", ["data.size is 0, but must be 1 to 105"]),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    message = str(error.value)
    assert message.startswith(str(path)) and "\n" not in message
    for word in words:
        assert word in message


def test_a_device_is_not_read() -> None:
    with pytest.raises(ConfigError, match=r"/dev/zero: cannot be read .not a regular file."):
        load_config(Path("/dev/zero"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: is neither a file nor a shipped"):
        load_config(tmp_path / "nowhere.toml")
