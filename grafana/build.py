#!/usr/bin/env python3
"""Writes the dashboards in grafana/dashboards; with --check, says which of them are not as they would be written."""

import argparse
import json
import sys
from pathlib import Path

sys.dont_write_bytecode = True

from board import backpressure, engine, latency, overview, process, security, shards  # noqa: E402
from board.panels import Json  # noqa: E402

FOLDER = Path(__file__).resolve().parent / "dashboards"
BOARDS = {
    "overview": overview.board,
    "latency": latency.board,
    "backpressure": backpressure.board,
    "shards": shards.board,
    "security": security.board,
    "engine": engine.board,
    "process": process.board,
}


def text(board: Json) -> str:
    """A dashboard as it stands in its file."""
    return json.dumps(board, indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a file differs")
    check = parser.parse_args().check

    wanted = {FOLDER / f"{name}.json": text(board()) for name, board in BOARDS.items()}
    found = {path: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    stale = sorted(path for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path))
    for path in stale:
        print(f"{'differs' if check else 'written'}: {path.name}")
        if check:
            continue
        if path in wanted:
            path.write_text(wanted[path], encoding="utf-8")
        else:
            path.unlink()
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
