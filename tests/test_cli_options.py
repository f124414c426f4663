"""The options of `irlbook train ...` are the fields of the configs, and a wrong one is one line."""

import ast
import inspect
import re
import shlex
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from irlbook import cli
from irlbook.cli import train
from irlbook.cli.options import Part, build, comments, knobs, parameters
from irlbook.posttraining import configs
from irlbook.training import config as training_config

# Fields and options -------------------------------------------------------------------------------

# A head on frozen embeddings is fitted to arrays, which a notebook holds and no command; and what
# is settled has been filled in by the methods.
WITHOUT_A_COMMAND = {configs.EmbeddingConfig, configs.Settled}
# A field and its option, where they do not have one name.
RENAMED = {
    ("RewardSource", "names"): "reward",
    ("RewardSource", "workers"): "reward-workers",
    ("RewardConfig", "use_margin"): "margin",
    ("RaftConfig", "prompts_per_round"): "prompts",
    ("IterativeConfig", "prompts_per_round"): "prompts",
    ("OnlineConfig", "method"): "variant",
    ("Source", "strict"): "strict",
}
PARTS = {  # which dataclasses a command is made of; a TrainingConfig is a StepConfig too
    "sft": {"Source", "TrainingConfig", "StepConfig", "Folder"},
    "reward": {"Source", "TrainingConfig", "StepConfig", "Folder", "RewardConfig", "Reading"},
    "dpo": {"Source", "TrainingConfig", "StepConfig", "Folder", "PreferenceConfig", "Measure"},
    "raft": {
        "Source",
        "RewardSource",
        "RaftConfig",
        "TrainingConfig",
        "StepConfig",
        "Folder",
        "Drawing",
    },
    "iterative": {
        "Source",
        "RewardSource",
        "IterativeConfig",
        "PreferenceConfig",
        "TrainingConfig",
        "StepConfig",
        "Folder",
        "Drawing",
    },
    **dict.fromkeys(
        ("reinforce", "remax", "rloo", "grpo", "ppo"),
        {"Source", "RewardSource", "OnlineConfig", "StepConfig", "Folder", "Drawing"},
    ),
}


def commands() -> dict[str, Any]:
    return typer.main.get_command(train.app).commands


def offered(command: Any) -> set[str]:
    """The options of a command as one types them, without their dashes."""
    return {option.opts[0].removeprefix("--") for option in command.params}


def public_configs() -> list[type]:
    found = [
        one
        for module in (configs, training_config, train)
        for one in vars(module).values()
        if isinstance(one, type) and is_dataclass(one) and one.__module__ == module.__name__
    ]
    return [one for one in found if one not in WITHOUT_A_COMMAND]


def option_of(owner: type, name: str) -> str:
    return RENAMED.get((owner.__name__, name), name.replace("_", "-"))


def unreachable(owners: list[type], offers: dict[str, set[str]]) -> list[str]:
    """Fields that no command made of their dataclass has an option for."""
    return [
        f"{owner.__name__}.{one.name}"
        for owner in owners
        for one in fields(owner)
        if one.name not in ("loss", "training") or not is_dataclass(one.default)
        if not any(
            option_of(owner, one.name) in offers[name]
            for name, parts in PARTS.items()
            if owner.__name__ in parts
        )
    ]


def without_field(owners: list[type], offers: dict[str, set[str]]) -> list[str]:
    """Options that are no field of the dataclasses that their command is made of."""
    return [
        f"{name} --{option}"
        for name, its in offers.items()
        for option in sorted(its)
        if option
        not in {
            option_of(owner, one.name)
            for owner in owners
            if owner.__name__ in PARTS[name]
            for one in fields(owner)
        }
    ]


@pytest.fixture
def offers() -> dict[str, set[str]]:
    return {name: offered(command) for name, command in commands().items()}


def test_every_field_of_every_config_has_an_option_and_every_option_a_field(offers):
    assert offers.keys() == PARTS.keys()
    assert unreachable(public_configs(), offers) == []
    assert without_field(public_configs(), offers) == []


def test_a_planted_field_and_a_planted_option_are_seen(offers):
    @dataclass(frozen=True)
    class Source(configs.Source):
        planted: int = 0

    owners = [Source if one is configs.Source else one for one in public_configs()]
    assert unreachable(owners, offers) == ["Source.planted"]
    offers["dpo"].add("planted")
    assert without_field(public_configs(), offers) == ["dpo --planted"]


def test_every_option_of_every_command_says_what_it_is():
    for name, command in commands().items():
        for option in command.params:
            assert option.help and option.help.endswith("."), f"{name} {option.opts}"
            assert option.help[0].isupper(), f"{name} {option.opts}: {option.help}"


def leaves(arguments: dict[str, Any], owner: str = "") -> dict[tuple[str, str], Any]:
    """{(dataclass, field): value} of all that a pipeline was called with."""
    found: dict[tuple[str, str], Any] = {}
    for name, value in arguments.items():
        if is_dataclass(value):
            own = {one.name: getattr(value, one.name) for one in fields(value)}
            found |= leaves(own, type(value).__name__)
        else:
            found[owner, name] = value
    return found


def another(option: Any, before: Any) -> list[object]:
    """The option with a value that is not what it was."""
    if option.secondary_opts:
        return [(option.secondary_opts if before else option.opts)[0]]
    choices = re.search(r"One of (.+)\.$", option.help)
    if choices:
        return [option.opts[0], next(one for one in choices[1].split(", ") if one != before)]
    if isinstance(before, tuple):
        return [option.opts[0], 0.25, 0.75]
    return [option.opts[0], {int: 7, float: 0.375}.get(type(before), 9)]


@pytest.fixture
def received(monkeypatch) -> list[dict[str, Any]]:
    """What the pipelines are called with, instead of a call."""
    calls: list[dict[str, Any]] = []

    def pipeline(**arguments):
        calls.append(arguments)
        return SimpleNamespace(history=[], reports=[], model="m")

    names = (
        "train_sft",
        "train_reward",
        "train_dpo",
        "train_policy",
        "train_raft",
        "train_iterative",
    )
    stand_in = SimpleNamespace(**dict.fromkeys(names, pipeline))
    monkeypatch.setattr(train, "import_module", lambda _: stand_in)
    return calls


@pytest.mark.parametrize("name", PARTS)
def test_what_an_option_says_arrives_in_its_field_and_in_no_other(name, call, received):
    command = commands()[name]
    least = [x for option in command.params if option.required for x in (option.opts[0], "x")]
    code, out, _ = call("train", name, *least)
    assert code == 0
    steps = [line.removeprefix("next: ") for line in out.splitlines() if line.startswith("next: ")]
    assert [parse(step)[0] for step in steps] == ["plot", "score" if name == "reward" else "sample"]
    plain = leaves(received.pop())
    belongs = {"reward": configs.REWARD_OWNERS, "dpo": configs.PREFERENCE_OWNERS}
    belongs |= {"grpo": configs.METHOD_OWNERS, "iterative": configs.PREFERENCE_OWNERS}
    for option in command.params:
        option_name = option.opts[0].removeprefix("--")
        (key,) = (
            (owner, field)
            for owner, field in plain
            if option_name == option_of(type(owner, (), {}), field)
            if (owner, field) != ("TrainingConfig", "seed")
            or name not in ("raft", "iterative")  # a round has its own
        )
        chooser = "--variant" if name == "grpo" else "--loss"
        whose = belongs.get(name, {}).get(key[1])
        choice = "dapo" if name == "grpo" else whose and whose[0]
        more = [chooser, choice] if whose else []
        given = [*least, *another(option, plain[key]), *more]
        code, _, err = call("train", name, *given)
        assert code == 0, err
        now = leaves(received.pop())
        differ = {one for one in now if now[one] != plain[one]}
        assert differ - {("OnlineConfig", "method"), ("PreferenceConfig", "loss")} <= {key}
        assert key in differ


def test_what_the_method_published_is_in_the_help(call):
    helps = {name: " ".join(call("train", name, "--help")[1].split()) for name in ("grpo", "ppo")}
    plain = {name: re.sub(r"[│ ]+", " ", text) for name, text in helps.items()}
    assert "as published: 0.2 for grpo, 0.2 for dr_grpo, 0.28 for dapo" in plain["grpo"]
    assert "as published: sequence for grpo, constant for dr_grpo, token for dapo" in plain["grpo"]
    assert "as published: k1; k1 as a penalty, k3 in the loss" in plain["ppo"]
    assert "as published: penalty" in plain["ppo"] and "as published: token" in plain["ppo"]


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (
            "dpo --loss dpo --margin 2",
            "margin is 2.0, and loss dpo does not use it, only slic, simpo",
        ),
        (
            "dpo --loss kto --label-smoothing 0.1",
            "label_smoothing is 0.1, and loss kto does not use it",
        ),
        (
            "reward --loss classification --margin",
            "use_margin is True, and loss classification does not",
        ),
        (
            "grpo --variant grpo --redraws 5 --reward x",
            "redraws is 5, and method grpo does not use it",
        ),
    ],
)
def test_an_option_of_another_choice_is_refused_not_ignored(call, received, command, named):
    code, _, err = call("train", *command.split(), *"--model m --data d --out o".split())
    assert code == 1 and named in err and err.count("\n") == 1 and not received


# How a field is written ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Inner:
    depth: int = 1  # how deep


@dataclass(frozen=True)
class Outer:
    where: str | Path  # a name or
    # a folder
    silent: bool = False
    inner: Inner = Inner(depth=4)


def test_a_comment_goes_on_below_its_field_and_a_dataclass_in_another_is_taken_apart():
    assert comments(Outer) == {"where": "a name or a folder"}
    part = Part(Outer, "Panel")
    assert [(knob.field.name, knob.default) for knob in knobs(part)] == [
        ("where", ...),
        ("silent", False),
        ("depth", 4),
    ]
    assert [one.name for one in parameters([part])] == ["where", "silent", "depth"]
    made = build(part, {"where": "w", "silent": True, "depth": 5})
    assert made == Outer("w", True, Inner(5))


# One line -----------------------------------------------------------------------------------------

HUGE = "1" * 400
DPO = "train dpo --model m --data d --out o"
RLOO = "train rloo --model m --data d --out o --reward r"


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("nothing", "No such command 'nothing'"),
        ("train nothing", "No such command 'nothing'"),
        ("train dpo", "Missing option '--model'; see irlbook train dpo --help"),
        (f"{DPO} --nothing 1", "No such option: --nothing"),
        (f"{DPO} --out", "'--out' requires an argument"),
        (f"{DPO} --loss dop", "'dop' is not one of 'dpo', 'robust'"),
        (f"{DPO} --device tpu", "'tpu' is not one of 'cpu', 'cuda'"),
        (f"{DPO} --beta x", "Invalid value for '--beta'"),
        (f"{DPO} --steps 1.5", "Invalid value for '--steps'"),
        (f"{DPO} --seed -1", "'--seed': a seed is 0 or more"),
        (f"{DPO} --betas 0.9", "'--betas'"),
        *((f"{DPO} --beta {x}", "finite number") for x in ("nan", "inf", "-inf", HUGE)),
        (f"{DPO} --max-grad-norm nan", "finite number"),
        *((f"{DPO} --{x} 1e300", "below 1e30") for x in ("learning-rate", "beta")),
        (f"{DPO} --betas 0.9 1", "betas is (0.9, 1.0); two numbers in [0, 1)"),
        (f"{DPO} --weight-decay -1", "weight_decay is -1.0; at least 0"),
        *((f"{DPO} --{x} 0", f"{x} is 0; at least 1") for x in ("lora", "steps", "keep")),
        (f"{DPO} --lora 100000000", "no matrix has such a rank"),
        (f"{DPO} --max-length -1", "max_length is -1; at least 1"),
        (f"{DPO} --kl-prompts -1", "kl_prompts is -1"),
        (f"{RLOO} --reward-workers -1", "workers is -1; from 0 to 4096"),
        (f"{RLOO} --temperature 0", "temperature and value_rate must be positive"),
        ("train ppo --model m --data d --out o --reward r --clip-low 2", "clip_low is 2.0"),
        ("train raft --model m --data d --out o --reward r --prompts -1", "at least 1"),
        *((f"{DPO} --betas 0.9 {x}", "'--betas': it must be a finite") for x in ("nan", "inf")),
        *((f"{DPO} --{x} {HUGE}", "below 2^63") for x in ("seed", "steps", "batch-size", "lora")),
        (f"{DPO} --steps {'9' * 5000}", "Invalid value for '--steps'"),
        (f"sample m --prompt x --n {HUGE}", "below 2^63"),
        ("sample m --prompt x --temperature nan", "finite number"),
        (f"score --model m --data d --beta {HUGE}", "finite number"),
        (f"world w --pairs {HUGE}", "below 2^63"),
        ("train sft --model m --data /no/such/file.jsonl --out o", "'/no/such/file.jsonl'"),
        ("sample m", "give either --prompts FILE or --prompt TEXT"),
        ("train dpo --out ~nobody_of_this_name/x --model m --data d", "no user nobody_of_this"),
    ],
)
def test_a_wrong_command_line_is_one_line_without_a_traceback(
    call, command, named, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*command.split())
    assert code in (1, 2) and named in err
    assert err.startswith("error: ") and err.count("\n") == 1 and out == ""
    assert not list(tmp_path.iterdir())


def test_what_the_system_refuses_is_one_line_too(call, monkeypatch):
    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied", "/root/x")

    monkeypatch.setattr("irlbook.posttraining.book_models.write_world", refuse)
    code, _, err = call("world", "x")
    assert (code, err) == (1, "error: [Errno 13] Permission denied: '/root/x'\n")


def test_a_bound_that_is_never_reached_may_be_infinite(call, received):
    assert call(*f"{DPO} --max-grad-norm inf".split())[0] == 0
    assert received[0]["config"].max_grad_norm == float("inf")


def test_a_tilde_is_a_home_in_every_option_that_is_a_path(call, received, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    rloo = "train rloo --model=~/m --data=~/d --out=~/o --reward=~/r1 --reward=~/r.py:f --gold=~/g"
    assert call(*rloo.split())[0] == 0
    (got,) = received
    assert got["out"] == tmp_path / "o"
    assert (got["source"].model, got["source"].data) == (f"{tmp_path}/m", f"{tmp_path}/d")
    assert got["reward"].names == [f"{tmp_path}/r1", f"{tmp_path}/r.py:f"]
    assert got["reward"].gold == f"{tmp_path}/g"
    monkeypatch.chdir(tmp_path)
    written = []
    monkeypatch.setattr(
        "irlbook.posttraining.book_models.write_world", lambda *a: written.append(a[0]) or []
    )
    assert call("world", "~/w")[0] == 0 and written == [tmp_path / "w"]
    assert not (tmp_path / "~").exists()


def test_a_tilde_in_a_text_is_a_tilde(call, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "irlbook.posttraining.files.sample_file", lambda *a, **k: asked.append(a[1]) or ([], [])
    )
    assert call("sample", "m", "--prompt", "~/x is a path")[0] == 0
    assert asked == [["~/x is a path"]]


# The face -----------------------------------------------------------------------------------------


def leaf_commands(command: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not hasattr(command, "commands"):
        return {path: command}
    return {
        at: one
        for name, its in command.commands.items()
        for at, one in leaf_commands(its, (*path, name)).items()
    }


LEAVES = leaf_commands(typer.main.get_command(cli.app))


def groups(command: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    inner = getattr(command, "commands", {}).items()
    found = {at: one for name, its in inner for at, one in groups(its, (*path, name)).items()}
    return {path: command, **found} if inner else {}


def parse(line: str) -> tuple[str, ...]:
    """Read a command line as `irlbook` would, without doing anything: the command that it names."""
    program, *words = shlex.split(line, comments=True)
    assert program == "irlbook", line
    path = next(tuple(words[:n]) for n in (2, 1, 0) if tuple(words[:n]) in {**LEAVES, **GROUPS})
    if path in LEAVES:
        if words[-1] != "--help":
            LEAVES[path].make_context(" ".join(path), words[len(path) :])
    else:
        assert set(words[len(path) :]) <= {"--help", "--version"}, line
    return path


GROUPS = groups(typer.main.get_command(cli.app))


@pytest.mark.parametrize("path", [*LEAVES, *GROUPS], ids=" ".join)
def test_every_help_ends_with_an_example_that_can_be_read(path):
    command = {**LEAVES, **GROUPS}[path]
    assert command.epilog.startswith("Example: irlbook ")
    assert parse(command.epilog.removeprefix("Example: "))[: len(path)] == path


def test_an_example_that_cannot_be_read_is_seen():
    for wrong in ("irlbook run --lits", "irlbook train dpo --model m", "irlbook nothing"):
        with pytest.raises((cli.UsageError, AssertionError)):
            parse(wrong)


def next_steps() -> list[str]:
    """The commands that stand behind `next:` in the sources, with x for what is filled in."""
    texts = [path.read_text() for path in Path(cli.__file__).parent.glob("*.py")]
    calls = [node for text in texts for node in ast.walk(ast.parse(text))]
    found = []
    for call in calls:
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "next_step":
            for node in ast.walk(call.args[0]):
                if isinstance(node, ast.Constant) and str(node.value).startswith("irlbook "):
                    found.append(ast.unparse(call.args[0]))
    return found


def test_every_command_says_what_to_do_next():
    assert len(next_steps()) >= 15
    text = {path.stem: path.read_text() for path in Path(cli.__file__).parent.glob("*.py")}
    for path, command in LEAVES.items():
        source = inspect.getsource(command.callback)
        own = path[0] == "train" or path in (("lab",), ("exercises", "grade"))
        assert own or "next_step(" in source, path
    assert "next_step(" in text["train"]


def test_every_command_has_a_heading_and_a_sentence():
    for name, command in typer.main.get_command(cli.app).commands.items():
        assert command.rich_help_panel.startswith("For "), name
    for path, command in LEAVES.items():
        assert command.help.splitlines()[0].endswith("."), path


def test_version(call):
    import irlbook

    assert call("--version") == (0, f"irlbook {irlbook.__version__}\n", "")


def test_a_group_alone_prints_its_help(call):
    for group in ((), ("train",), ("notebooks",), ("exercises",)):
        code, out, err = call(*group)
        assert code == 2 and "Usage: irlbook" in out + err and "Traceback" not in err


def test_the_end_of_raft_shows_no_row_of_zeros_and_held_out_stands_apart():
    row = {"round": 2, "reward": 1.5, "kept": 0, "constant": 0, "unfinished": 0}
    assert list(train._last(row)) == ["last: round 2  reward 1.5"]
    row = {"step": 8, "loss": 0.5, "held_out_loss": 0.625, "held_out_accuracy": 0.75}
    assert list(train._last(row)) == [
        "last: step 8  loss 0.5",
        "held out: loss 0.625  accuracy 0.75",
    ]


def test_another_run_is_told_by_the_fields_that_differ_alone():
    from irlbook.training.checkpoints import _other_objective

    its, mine = (repr(configs.PreferenceConfig(beta=beta)) for beta in (0.3, 0.2))
    assert _other_objective(its, mine) == "beta was 0.3 and is 0.2"
    sft = "sft(mean_length=4.5)"
    assert _other_objective(sft, mine) == f"objective was {sft} and is {mine}"
