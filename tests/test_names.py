"""One name, one thing: a public name that two modules define is here with the reason for it."""

import ast
from collections import defaultdict
from pathlib import Path

import irlbook

PACKAGE = Path(irlbook.__file__).parent

# Where a name is read with its module (`profiles.load()`, `dpo.objective`) it is short on purpose.
TWICE = {
    "alike": "two hidden states, up to rounding; the rewards of a group",
    "build": "notebooks.build; book_models.build",
    "check": "exercises.check; arithmetic.check, of a worked solution",
    "choose": "best_of_n.choose, of rewards; the study's choice of a run's step",
    "collect": "of rows by a reader; of steps by PPO",
    "demonstrations": "of each task: reviews.demonstrations, arithmetic.demonstrations",
    "discriminator_loss": "exactly, of tables; of samples and a network, in GAIL",
    "draw": "an action; responses, in the plain lesson and in the engine",
    "Finding": "of the doctor; of a reader of data",
    "generate": "problems of each task of word problems",
    "gold": "the gold reward of a task: reviews.gold, sentiment.gold",
    "hasty": "a guess as each task of word problems writes it",
    "hidden_states": "of plain rows; of packed trees",
    "keep_best": "of samples to fit (RAFT); of particles that go on",
    "load": "book_models.load, profiles.load, study.load: the thing of their module",
    "loads": "codec.loads; files.loads",
    "log_likelihood": "of demonstrations; of a reviewer's choices",
    "main": "of a program",
    "Material": "what a seed of each study starts from",
    "objective": "what each loss of training offers under one name: dpo.objective, sft.objective",
    "packs": "does this architecture pack right; does this scorer",
    "positions": "of the nodes of a drawn maze; of noughts and crosses",
    "ppo": "the lesson's on language models; on Gymnasium environments",
    "problems": "of the glossary; of an exercise",
    "record": "what each study stores of a run",
    "reinforce_loss": "of a Gymnasium episode; of a group of responses",
    "renewed": "what is stale: of the fronts, of the teaching kit",
    "response_logits": "of packed trees; of plain rows",
    "settings": "what the runs of each study share",
    "Rollout": "samples of a language model; steps of a Gymnasium environment",
    "Row": "a row of a file; a row of a batch",
    "run": "one run of each study",
    "score": "the score function of a tabular policy; training.score, of responses",
    "shaped": "by a potential; by a price of KL",
    "softmax_policy": "of weights and features; of logits",
    "solve": "the careful solution of each task of word problems",
    "stored": "the counts from real data that ship: of jailbreaks, of reasoning",
    "Study": "what all runs of each study share",
    "sweep": "the runs of each study",
    "Table": "a CSV file as it was found; policy and value of a small game",
    "token_logps": "of the engine; of the plain lesson",
    "World": "a Gymnasium world's MDP; a world of over-optimisation, in closed form",
    "write_atomically": "of a notebook, with its mode; of marks, synced to disk",
}


def definitions() -> dict[str, list[str]]:
    """Where each public function and class stands. The names of commands are the command line's."""
    found = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).with_suffix("").as_posix()
        if module.startswith(("cli", "exercises/chapters", "exercises/wrong_answers")):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(module)
    return found


def test_a_public_name_is_defined_once_or_says_why_not():
    twice = {name: where for name, where in definitions().items() if len(where) > 1}
    assert {name: where for name, where in twice.items() if name not in TWICE} == {}
    assert set(TWICE) - set(twice) == set(), "these stand once; take them off the list"
