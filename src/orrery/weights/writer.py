"""Write tensors in a published layout: back to the folder that diffusers and transformers read. Ours is `folder`'s."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from torch import Tensor

from orrery.errors import CheckpointError
from orrery.weights.atomic import new_folder
from orrery.weights.documents import dump_json, listed
from orrery.weights.folder import write_file
from orrery.weights.rename import Layout, published_shape
from orrery.weights.shard import write_tensors

MAX_SHARD_BYTES = 5 * 10**9
"""Where released folders cut their files."""


def save_published(
    path: Path,
    *,
    transformer: Mapping[str, Tensor],
    layout: Layout,
    documents: Mapping[str, object],
    eyes: Mapping[str, Tensor] | None = None,
    eyes_layout: Layout | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a folder as the released models have it: `transformer/`, `vision_encoder/` and the root index over both.

    Values and dtypes are stored as they are given: what is read back is bit-equal.

    Args:
        path: a new folder.
        transformer, eyes: our names -> tensors of the Mixture-of-Transformers and of the vision encoder.
        layout, eyes_layout: how the published files call them.
        documents: file name, such as `transformer/config.json` -> bytes, or a value to store as JSON.
        max_shard_bytes: a file holds at most so many bytes of tensors, or one tensor.

    Raises:
        CheckpointError: there is something at `path`, a name has no place in its layout, or a tensor is not finite.
        OSError: the disk is full or not writable. Nothing is left at `path` then.
    """
    if path.exists():
        raise CheckpointError(f"{path} exists and would be replaced. Give a new folder.")
    if (eyes is None) != (eyes_layout is None):
        raise ValueError("eyes and eyes_layout are given together or not at all")
    parts = [("transformer", "diffusion_pytorch_model", published(transformer, layout))]
    if eyes is not None and eyes_layout is not None:
        parts.append(("vision_encoder", "model", published(eyes, eyes_layout)))
    with new_folder(path) as folder:
        for name, document in documents.items():
            write_file(folder / name, document if isinstance(document, bytes) else dump_json(document))
        index: dict[str, str] = {}
        total = 0
        for part, stem, tensors in parts:
            shards = list(_shards(tensors, max_shard_bytes))
            files = [f"{stem}-{k + 1:05}-of-{len(shards):05}.safetensors" for k in range(len(shards))]
            if len(shards) == 1:
                files = [f"{stem}.safetensors"]
            below: dict[str, str] = {}
            for file, shard in zip(files, shards, strict=True):
                write_file(folder / part / file, partial(write_tensors, tensors=shard))
                below |= dict.fromkeys(shard, file)
            size = sum(tensor.nbytes for tensor in tensors.values())
            if len(shards) > 1:
                document = {"metadata": {"total_size": size}, "weight_map": below}
                write_file(folder / part / f"{stem}.safetensors.index.json", dump_json(document))
            index |= {name: f"{part}/{file}" for name, file in below.items()}
            total += size
        document = {"metadata": {"total_size": total}, "weight_map": index}
        write_file(folder / "model.safetensors.index.json", dump_json(document))


def published(tensors: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """The same values under their published names and shapes; views, where the memory allows.

    Raises:
        CheckpointError: a name has no place in the layout.
    """
    renamed: dict[str, Tensor] = {}
    lost: list[str] = []
    for ours, tensor in tensors.items():
        found = layout.published(ours)
        if found is None:
            lost.append(ours)
        else:
            name, form = found
            renamed[name] = tensor.detach().reshape(published_shape(form, tuple(tensor.shape)))
    if lost:
        raise CheckpointError(
            f"The {layout.name} layout has no place for {listed(map(repr, lost))}. Save it in our own layout."
        )
    return renamed


def _shards(tensors: Mapping[str, Tensor], max_bytes: int) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        if shard and size + tensor.nbytes > max_bytes:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += tensor.nbytes
    yield shard
