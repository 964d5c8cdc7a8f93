"""What identifies a pool beyond its configuration: the fingerprints of its source.

The planner puts this in the key of the pairs, so that an edited file, another Python or a moved
branch of a Hub data set is another artifact. It loads nothing heavy: planning happens on every
command.
"""

from dataclasses import replace
from pathlib import Path

from qaq.data import stdlib
from qaq.data.config import SOURCES, DataConfig
from qaq.host.errors import DataError
from qaq.store import hub
from qaq.store.cache import remembered_sha256
from qaq.store.keys import content_key

CODERS = Path(__file__).parent / "pools" / "coders.parquet"
LFS = b"version https://git-lfs.github.com/"
PACKED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
NOT_READ = (".xz", ".lzma", ".lz4", ".br", ".zip", ".7z", ".rar", ".tar", ".tgz", ".tbz", ".txz")
ARROW = ".arrow"
FORMS = {  # sources that are files, with the usual endings of their names
    "jsonl": (".jsonl", ".ndjson", ".jsonlines", ".jl"),
    "json": (".json",),
    "csv": (".csv", ".tsv"),
    "parquet": (".parquet",),
}


def identity(config: DataConfig) -> dict[str, str]:
    """Content hash of the source: of the file, of the library's sources, or the Hub's commit.

    Raises:
        DataError: the file is missing, or the Hub's commit cannot be learnt.
    """
    own = SOURCES.fingerprint(config.source)
    if own:
        asked = SOURCES[config.source].identity
        if asked is None:
            return own | (_path_identity(config.path) if config.path else {})
        there = [path for path in _each(config.path or ()) if path.exists()]  # it may be an address
        content = _path_identity(tuple(there)) if there else {}
        return own | {f"path_{name}": v for name, v in content.items()} | dict(asked(config))
    if config.source == "synthetic":
        return {}  # an artifact, whose key is in the pool's
    if config.source == "stdlib":
        return {"sha256": stdlib.library_sha256()}
    if config.source == "hub":
        return {"revision": hub_revision(config), "split": config.split}
    return _content(data_files(config))


def _path_identity(paths: Path | tuple[Path, ...]) -> dict[str, str]:
    """Content hash of files, and of all files of folders with their names in these."""
    each = _each(paths)
    for path in each:
        if not path.exists():
            raise DataError(f"data.path: no such file: {path}")
    if not any(path.is_dir() for path in each):
        return _content(list(each))
    files = [
        (str(file.relative_to(path)), remembered_sha256(file))
        for path in each
        for file in (sorted(path.rglob("*")) if path.is_dir() else [path])
        if file.is_file()
    ]
    return {"sha256": content_key(files)}


def _each(paths: Path | tuple[Path, ...]) -> tuple[Path, ...]:
    return paths if isinstance(paths, tuple) else (paths,)


def _content(files: list[Path]) -> dict[str, str]:
    if len(files) == 1:
        return {"sha256": remembered_sha256(files[0])}
    return {"sha256": content_key([remembered_sha256(file) for file in files])}


def data_files(config: DataConfig) -> list[Path]:
    """The configured files, each once; those of a folder or a pattern in the order of their names.

    Raises:
        DataError: there is none, or one is not the data but a Git LFS pointer to it.
    """
    if config.source == "coders":
        return [CODERS]
    if not config.path:
        raise DataError(f"data.source={config.source} needs a file; set data.path=FILE")
    ends = FORMS.get(config.source, ())
    return list(dict.fromkeys(file for path in _each(config.path) for file in files_of(path, ends)))


def files_of(path: Path, ends: tuple[str, ...]) -> list[Path]:
    """The file; or the files of a folder whose names end so (packed or not), or of a pattern.

    Raises:
        DataError: there is none, one cannot be read as it lies there, or the folder holds a link to
            another: a part of the data is never taken for the whole.
    """
    root = Path(path.anchor)
    if path.is_dir():
        found = list(path.rglob("*"))
    else:
        found = [path] if path.exists() else [*root.glob(str(path.relative_to(root)))]
    named = set(path.parts)  # what is hidden is read where its name was given
    found = sorted(
        f for f in found if not any(p.startswith(".") for p in f.parts if p not in named)
    )
    if path.is_dir():
        if linked := next((f for f in found if f.is_symlink() and f.is_dir()), None):
            raise DataError(
                f"{linked} is a link to a folder, which is not followed; name the files and "
                f"folders that are meant, or a pattern such as '{path}/*{ends[0]}'"
            )
        found = [f for f in found if _is_data(f, ends)]
    files = [f for f in found if not f.is_dir()]
    if not files:
        what = f"no {' or '.join(ends)} in" if path.is_dir() else "no such file:"
        raise DataError(f"data.path: {what} {path}")
    for file in files:
        _refuse_unreadable(file)
    return files


def bare_name(path: Path) -> str:
    """A file's name without the ending of a packing."""
    return path.name.removesuffix(path.suffix if path.suffix.lower() in PACKED else "")


def _is_data(file: Path, ends: tuple[str, ...]) -> bool:
    """Whether a name says so, also behind the ending of a packing that is not read."""
    name = bare_name(file).lower()
    inner = name.removesuffix(Path(name).suffix) if name.endswith(NOT_READ) else name
    return inner.endswith((*ends, ARROW))


def _refuse_unreadable(file: Path) -> None:
    name = bare_name(file).lower()
    if not file.is_file():
        raise DataError(f"{file} is no file, or a link that leads nowhere")
    if name.endswith(NOT_READ):
        raise DataError(
            f"{file} is packed in a way that is not read; unpack it, or pack it anew as "
            f"{' or '.join(PACKED)}"
        )
    if name.endswith(ARROW):
        raise DataError(
            f"{file} is what Dataset.save_to_disk writes; write Parquet and name that: "
            f"datasets.load_from_disk('{file.parent}').to_parquet('pool.parquet')"
        )
    with file.open("rb") as opened:
        if opened.read(len(LFS)) == LFS:
            raise DataError(f"{file} is not the data but a Git LFS pointer to it; run git lfs pull")


def hub_revision(config: DataConfig) -> str:
    """The commit that `hub_id` and `revision` mean now (offline: when it was last looked up)."""
    if config.hub_id is None:
        raise DataError("data.source=hub needs a data set; set data.hub_id=OWNER/NAME")
    try:
        return config.commit or hub.commit("dataset", config.hub_id, config.revision)
    except hub.HubError as error:
        raise DataError(
            f"{error}. Look at data.hub_id and data.revision; offline, use data=parquet (or jsonl) "
            "with data.path=FILE"
        ) from error


def pinned(config: DataConfig) -> DataConfig:
    """The source with the commit that its Hub data set has now.

    Raises:
        DataError: the Hub's commit cannot be learnt.
    """
    return replace(config, commit=hub_revision(config)) if config.source == "hub" else config
