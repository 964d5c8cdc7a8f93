"""`qaq export`: the rows that a subset keeps, as a file that any trainer reads."""

from pathlib import Path

from qaq.host.errors import DataError, UserError
from qaq.store.tables import PAIRS_WITH_SYSTEM, SUBSET, read_table, with_system, write_jsonl

COLUMNS = ["row_id", "question", "answer", "source"]


def export(subset_dir: Path, pairs_dir: Path, file: Path) -> int:
    """Write the kept rows with their score and rank, in the order of the pool; returns how many.

    Args:
        pairs_dir: the pairs artifact that it was chosen from.
        file: `.jsonl` (chat messages: what TRL, Axolotl and LlamaFactory read) or `.parquet`
            (plain columns).

    Raises:
        UserError: the file's ending says neither.
        DataError: the two hold different rows.
    """
    if file.suffix not in (".jsonl", ".parquet"):
        raise UserError(f"{file}: what form? End the name in .jsonl or .parquet")
    chosen = read_table(subset_dir / "rows.parquet", SUBSET, ["row_id", "score", "rank", "kept"])
    texts = pairs_dir / "pairs.parquet"
    pairs = read_table(texts, PAIRS_WITH_SYSTEM, with_system(texts, COLUMNS)).to_pandas()
    rows = pairs.merge(chosen.to_pandas(), on="row_id", how="left", validate="1:1", sort=False)
    if rows["kept"].isna().any() or len(rows) != len(chosen):
        raise DataError(f"{subset_dir.name} was not chosen from {pairs_dir.name}")
    kept = rows[rows["kept"].astype(bool)].drop(columns="kept")
    if file.suffix == ".parquet":
        temporary = file.with_name(f".{file.name}.tmp")
        kept.to_parquet(temporary, index=False)
        temporary.replace(file)
        return len(kept)
    lines = (
        {
            "messages": [
                *_system_turn(row.get("system")),
                {"role": "user", "content": row["question"]},
                {"role": "assistant", "content": row["answer"]},
            ],
            "row_id": row["row_id"],
            "source": row["source"],
            "score": None if row["score"] != row["score"] else row["score"],
            "rank": None if row["rank"] != row["rank"] else row["rank"],
        }
        for row in kept.to_dict("records")
    )
    write_jsonl(file, lines)
    return len(kept)


def _system_turn(text: object) -> list[dict[str, str]]:
    return [{"role": "system", "content": text}] if isinstance(text, str) else []  # else NaN
