"""The one training loop, and what a run leaves on disk. `import irlbook.training` loads no torch.

config.py        what a run is told
loop.py          `train`, for SFT, reward models and the DPO family; the parts that others share
checkpoints.py   a run's folder
metrics_file.py  what a run has measured, read again
distributed.py   devices and processes
"""

from irlbook._front import front

__all__, __getattr__, __dir__ = front(
    __name__,
    {
        "checkpoints": [
            "Metrics",
            "Run",
            "data_digest",
            "fingerprint",
            "going_on",
            "nothing_trained",
            "write_whole",
        ],
        "config": ["StepConfig", "TrainingConfig", "at_least"],
        "distributed": [
            "accelerator",
            "autocast",
            "check_device",
            "check_shard",
            "copy_weights",
            "gradients_meet",
            "is_main_process",
            "own_part",
            "ranks",
            "reshard",
            "shard",
            "split_like",
            "unshard",
            "whole",
            "whole_weights",
        ],
        "loop": [
            "Batch",
            "Objective",
            "TrainingResult",
            "accumulate",
            "adamw",
            "disable_dropout",
            "evaluate_objective",
            "learning_rate",
            "micro_batches",
            "per_response",
            "row_sizes",
            "same_prompt",
            "schedule",
            "score",
            "token_scores",
            "train",
        ],
        "metrics_file": ["read_metrics"],
    },
)
