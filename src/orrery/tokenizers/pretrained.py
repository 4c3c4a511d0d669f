"""Strict reading of a diffusers network from a folder of a checkpoint."""

from pathlib import Path
from typing import Any

from orrery.errors import CheckpointError


def read_pretrained(network: Any, folder: Path) -> Any:
    """Read a diffusers network from disk only, and refuse what diffusers would let pass with a log line.

    Raises:
        CheckpointError: the folder is unreadable, or tensors are missing, left over or misshapen.
    """
    try:
        model, report = network.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{network.__name__} cannot be read from {folder}: {reason}") from error
    kinds = ("missing", "unexpected", "mismatched")
    wrong = [f"{kind} {key}" for kind in kinds for key in sorted(map(str, report[f"{kind}_keys"]))]
    if wrong or report["error_msgs"]:
        listed = ", ".join([*wrong, *report["error_msgs"]][:5])
        raise CheckpointError(
            f"{network.__name__} in {folder} does not fit its configuration: {listed} ({len(wrong)} tensors in all)."
        )
    return model
