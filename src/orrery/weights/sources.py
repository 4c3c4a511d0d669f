"""From a file, an index or a folder to the safetensors files to read. Which tensor goes where is `reader`'s."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from orrery.errors import CheckpointError
from orrery.weights.documents import listed, load_json_object
from orrery.weights.shard import Shard, open_shard

_INDEX = ".safetensors.index.json"
_PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".distcp")


def open_shards(sources: Sequence[Path]) -> list[Shard]:
    """Open the safetensors files that files, index files and folders stand for, headers only.

    A folder stands for its one index, or its one file. The index at the root of a released folder names files below
    `transformer/` and `vision_encoder/`; each file must then hold the tensors the index says, and no others.

    Raises:
        CheckpointError: a file is missing or damaged, disagrees with its index, holds a tensor twice with another
            file, or would have to be unpickled.
    """
    shards = [shard for source in sources for shard in _open_source(source)]
    owners: dict[str, Path] = {}
    for shard in shards:
        for name in shard.entries:
            if name in owners:
                raise CheckpointError(f"Tensor {name!r} is in two files, {owners[name]} and {shard.path}. Remove one.")
            owners[name] = shard.path
    return shards


def _open_source(source: Path) -> list[Shard]:
    if source.name.endswith(_INDEX):
        return _open_index(source)
    if source.is_dir():
        return _open_folder(source)
    _refuse_pickle(source)
    return [open_shard(source)]


def _open_folder(folder: Path) -> list[Shard]:
    indices = sorted(folder.glob(f"*{_INDEX}"))
    files = sorted(folder.glob("*.safetensors"))
    if len(indices) == 1:
        shards = _open_index(indices[0])
        extra = set(files) - {shard.path for shard in shards}
        if extra:
            raise CheckpointError(
                f"{indices[0]} does not name {listed(path.name for path in extra)} beside it. "
                "Remove what does not belong, or pass the index file itself."
            )
        return shards
    if not indices and len(files) == 1:
        return [open_shard(files[0])]
    if not indices and not files:
        for path in sorted(folder.iterdir()):
            _refuse_pickle(path)
        raise CheckpointError(f"{folder} holds no .safetensors file. Pass the folder that holds the weights.")
    raise CheckpointError(
        f"{folder} holds {len(indices)} indices and {len(files)} .safetensors files. Pass the file or index to read."
    )


def _open_index(index: Path) -> list[Shard]:
    try:
        document = load_json_object(index.read_bytes(), index)
    except OSError as error:
        raise CheckpointError(f"{index} cannot be read ({error.strerror}). Fetch the file again.") from None
    weight_map = document.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise CheckpointError(f"{index} has no weight_map from tensors to files. Fetch the file again.")
    expected: dict[str, set[str]] = {}
    for name, file in weight_map.items():
        if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts or "\\" in file or "\0" in file:
            raise CheckpointError(f"{index} names {file!r}, which lies outside its folder. Do not use this checkpoint.")
        _refuse_pickle(index.parent / file)
        expected.setdefault(file, set()).add(name)
    shards = []
    for file, names in sorted(expected.items()):
        path = index.parent / file
        if not path.is_file():
            raise CheckpointError(f"{index} names {file}, which is missing (tensors {listed(names)}). Fetch the file.")
        shard = open_shard(path)
        if missing := names - shard.entries.keys():
            raise CheckpointError(f"{path} lacks {listed(missing)}, which {index.name} places there. Fetch both again.")
        if extra := shard.entries.keys() - names:
            raise CheckpointError(f"{path} holds {listed(extra)}, unknown to {index.name}. Fetch both again.")
        shards.append(shard)
    return shards


def _refuse_pickle(path: Path) -> None:
    if path.suffix in _PICKLED or path.name == ".metadata":
        raise CheckpointError(
            f"{path} is a pickle: loading it could run a stranger's code, so it is never opened. "
            "Take the safetensors files of the same model."
        )
