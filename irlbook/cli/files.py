"""`irlbook world`, `sample`, `score` and `plot`; `models import` and `models train`."""

import json
import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from irlbook.cli.options import next_step, with_example, working
from irlbook.posttraining.configs import How

__all__ = [
    "Data",
    "Device",
    "MODELS",
    "Revision",
    "Seed",
    "Skip",
    "Split",
    "app",
    "import_file",
    "models_app",
    "plot",
    "sample",
    "score",
    "train_again",
    "world",
]

app = typer.Typer()
models_app = typer.Typer(
    help="Bring a model in from a GGUF file, or train one of the book's again.",
    epilog="Example: irlbook models import --help",
    no_args_is_help=True,
)
MODELS = "For language models"

Data = Annotated[
    str, typer.Option(help="A data file (jsonl, parquet ...), a folder of them, or a hub name.")
]
Device = Annotated[Literal["cpu", "cuda"], typer.Option(help="Where it is computed.")]
Skip = Annotated[
    bool,
    typer.Option("--skip-malformed", help="Leave malformed rows out instead of stopping at one."),
]
Split = Annotated[
    str | None,
    typer.Option(
        help="Which part of a folder or of a hub data set is read, such as train.",
        show_default="train, if there are several",
    ),
]
Revision = Annotated[
    str | None,
    typer.Option(help="The branch, tag or commit of a hub model; only a commit is reproducible."),
]
Seed = Annotated[int, typer.Option(help="Every seed has its own model and its own texts.", min=0)]


@with_example(app, "irlbook world data --seed 0", MODELS)
def world(
    out: Annotated[Path, typer.Argument(help="A new folder for the world's files.")],
    seed: Seed = 0,
    pairs: Annotated[int, typer.Option(help="How many preferences are written.", min=1)] = 1500,
) -> None:
    """Write a small world to try things on: a model, demonstrations and preferences."""
    from irlbook.posttraining.book_models import write_world

    working(f"writing the world of seed {seed} to {out}")
    for path in write_world(out, seed, pairs):
        typer.echo(path)
    here = shlex.quote(str(out))
    next_step(
        f"irlbook train reward --model {here}/model --data {here}/preferences.jsonl "
        f"--held-out {here}/held_out.jsonl --out runs/reward --learning-rate 1e-3 --epochs 2",
        err=True,
    )


@with_example(
    models_app, "irlbook models import SmolLM2-135M-Instruct.Q4_1.gguf smollm2", name="import"
)
def import_file(
    file: Annotated[Path, typer.Argument(help="A GGUF file of a Llama or Qwen2 model.")],
    folder: Annotated[Path, typer.Argument(help="A new folder for the model.")],
    dtype: Annotated[
        Literal["float32", "bfloat16"],
        typer.Option(help="How weights are written; bfloat16 takes half the room and rounds them."),
    ] = "float32",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the model that the folder holds.")
    ] = False,
) -> None:
    """Turn a GGUF file into a folder of safetensors, with tokenizer, chat template and a card.

    The folder can be given wherever a model is asked for. For 135 million weights it takes a minute
    or two on one core, and 1.2 GiB of memory in float32.
    """
    from irlbook.lm.gguf_files import import_gguf

    try:
        card = import_gguf(file, folder, dtype=dtype, overwrite=overwrite, say=working)
    except KeyboardInterrupt:
        typer.echo("interrupted; nothing was written", err=True)
        raise typer.Exit(130) from None
    kinds = ", ".join(f"{kind} in {n} tensors" for kind, n in card["tensors"].items())
    typer.echo(f"{card['architecture']}, {card['parameters']:,} weights: {kinds}")
    for line in card["lost"]:
        typer.echo(f"note: {line}")
    typer.echo(f"model: {folder} ({card['dtype']}; card.json says where it comes from)")
    next_step(
        f"irlbook sample {shlex.quote(str(folder))} --temperature 0 "
        '--prompt "What is the capital of France?"'
    )


@with_example(models_app, "irlbook models train models/seed3 --seed 3", name="train")
def train_again(
    out: Annotated[Path, typer.Argument(help="The model's folder.")], seed: Seed = 0
) -> None:
    """Train a starting point of the chapters again (two minutes on one core)."""
    from irlbook.posttraining.book_models import build

    working(f"training the model of seed {seed}, which takes about two minutes")
    card = build(seed, out)
    for name in ("held_out_loss", "gold", "gold_se", "ended"):
        typer.echo(f"{name} {card[name]}")
    next_step(f"irlbook doctor {shlex.quote(str(out))}")


@with_example(app, 'irlbook sample runs/dpo --prompt "Write a review of the bus." --n 4', MODELS)
def sample(
    model: Annotated[str, typer.Argument(help="A hub name, a folder, or a run's folder.")],
    prompts: Annotated[
        str | None, typer.Option(help="A data file whose column prompt is answered.")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="A prompt itself; may be given several times.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The data file to write (.jsonl ...); without one, rows are printed."),
    ] = None,
    n: Annotated[
        int, typer.Option("--n", help="How many responses are drawn to each prompt.", min=1)
    ] = 1,
    max_new_tokens: Annotated[
        int, typer.Option(help="A response is cut after this many tokens.", min=1)
    ] = 128,
    temperature: Annotated[
        float, typer.Option(help="Above 1 is bolder, below 1 safer; 0 takes the likeliest token.")
    ] = 1.0,
    top_p: Annotated[
        float,
        typer.Option(help="Draw from the likeliest tokens that hold this share of probability."),
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed draws the same responses.", min=0)] = 0,
    batch_size: Annotated[
        int,
        typer.Option(
            help="How many responses are computed at a time; lower it to save memory.", min=1
        ),
    ] = 256,
    device: Device = "cpu",
    precision: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="The precision of the weights.")
    ] = "float32",
    skip_malformed: Skip = False,
    split: Split = None,
    revision: Revision = None,
) -> None:
    """Sample responses of a language model to the prompts of a file, or to one given here."""
    from irlbook.posttraining.files import sample_file

    if bool(prompts) == bool(prompt):
        raise typer.BadParameter("give either --prompts FILE or --prompt TEXT")
    working(f"loading {model}")
    try:
        rows, lines = sample_file(
            model,
            prompts or prompt or [],
            out,
            n=n,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            batch_size=batch_size,
            device=device,
            precision=precision,
            strict=not skip_malformed,
            split=split,
            revision=revision,
        )
    except KeyboardInterrupt:
        typer.echo("interrupted; nothing was written", err=True)
        raise typer.Exit(130) from None
    if out is None:
        for row in rows:
            typer.echo(json.dumps(row, ensure_ascii=False))
    for line in lines:
        typer.echo(line, err=out is None)
    if out is not None and Path(model).exists():
        written = f"--model {shlex.quote(str(model))} --data {shlex.quote(str(out))}"
        next_step(f"irlbook score {written} --kind demonstrations")


@with_example(app, "irlbook score --model runs/reward --data data/held_out.jsonl", MODELS)
def score(
    model: Annotated[
        list[str],
        typer.Option(help="A reward model, several (an ensemble), or a language model."),
    ],
    data: Data,
    out: Annotated[
        Path | None, typer.Option(help="The csv to write, with one row a response.")
    ] = None,
    kind: Annotated[
        Literal["preferences", "demonstrations", "unpaired"],
        typer.Option(help="What the rows of the data are."),
    ] = "preferences",
    reference: Annotated[
        str | None,
        typer.Option(help="A language model: score another by its log-ratios to this one."),
    ] = None,
    beta: Annotated[
        float, typer.Option(help="The factor of these log-ratios; it needs --reference.")
    ] = 0.1,
    ensemble: Annotated[How, typer.Option(help="How several reward models are joined.")] = "mean",
    device: Device = "cpu",
    precision: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="The precision of the computation.")
    ] = "float32",
    max_tokens: Annotated[
        int,
        typer.Option(
            help="How many padded tokens are held at once; lower it to save memory.", min=1
        ),
    ] = 8192,
    max_length: Annotated[
        int | None,
        typer.Option(
            help="Leave out records of more tokens than this.",
            min=1,
            show_default="the model's context",
        ),
    ] = None,
    skip_malformed: Skip = False,
    split: Split = None,
    revision: Revision = None,
) -> None:
    """Score the responses of a file with a reward model or a language model."""
    from irlbook.posttraining.files import score_file
    from irlbook.training.config import StepConfig

    working(f"loading {', '.join(model)}")
    _, lines = score_file(
        model,
        data,
        out,
        kind=kind,
        reference=reference,
        beta=beta,
        config=StepConfig(device=device, max_tokens=max_tokens, precision=precision),
        ensemble=ensemble,
        strict=not skip_malformed,
        split=split,
        max_length=max_length,
        revision=revision,
    )
    for line in lines:
        typer.echo(line)
    next_step("irlbook train rloo --help", "trains a policy on a reward model")


@with_example(app, "irlbook plot runs/rloo runs/grpo --out runs.png", MODELS)
def plot(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders of runs, finished or not."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The picture to write: .png, .svg or .pdf.",
            show_default="training.png in the run's folder; of several runs, in the current one",
        ),
    ] = None,
) -> None:
    """Draw what training runs have measured, and say what of it is normal by the chapters.

    Reward, gold, KL, entropy, length, loss and more, as far as metrics.csv has them. A thin line is
    what was measured, a thick one its running mean, a dashed one is on held-out data, and a grey
    band is what a chapter calls normal.
    """
    out = out or (runs[0] if len(runs) == 1 and runs[0].is_dir() else Path()) / "training.png"
    if out.suffix not in (".png", ".svg", ".pdf"):
        raise typer.BadParameter(f"{out} does not end in .png, .svg or .pdf", param_hint="'--out'")
    import matplotlib

    matplotlib.use("Agg")  # draws files, on machines without a screen too
    from irlbook.run_plots import draw_runs, in_words, read_run

    records = [read_run(run) for run in runs]
    for record in records:
        typer.echo(f"{record.name}: {len(record.rows)} rows, to step {record.rows[-1]['step']}")
        for line in in_words(record):
            typer.echo(f"  {line}")
    figure = draw_runs(records)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    typer.echo(f"picture: {out}")
    folder = runs[0] if runs[0].is_dir() else runs[0].parent
    asks = 'sample {} --prompt "Write a review of the bus."'
    if records[0].kind == "reward":
        asks = "score --model {} --data data/held_out.jsonl"
    next_step(f"irlbook {asks.format(shlex.quote(str(folder)))}")
