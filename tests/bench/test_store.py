"""The store keeps what it is given, from several writers at once; only what is the same result replaces another."""

import json
import math
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from results import RESULT

from ssl_suite.bench.store import Store, to_json
from ssl_suite.core.errors import UserError


def test_results_come_back_as_they_were(tmp_path: Path) -> None:
    results = [RESULT, replace(RESULT, seed=1, online=True, method="naïve «x»")]
    Store(tmp_path / "new" / "results.sqlite").add(results)
    assert Store(tmp_path / "new" / "results.sqlite").rows() == results


def test_numpy_numbers_are_stored_as_numbers(tmp_path: Path) -> None:
    store = Store(tmp_path / "r.sqlite")
    store.add([replace(RESULT, value=np.float32(0.5), seed=np.int64(3))])  # type: ignore[arg-type]
    assert (store.rows()[0].value, store.rows()[0].seed) == (0.5, 3)


def test_nan_and_infinity_survive(tmp_path: Path) -> None:
    store = Store(tmp_path / "r.sqlite")
    store.add([replace(RESULT, value=math.nan), replace(RESULT, value=math.inf, seed=1)])
    assert math.isnan(store.rows()[0].value)
    assert store.rows()[1].value == math.inf


def test_the_same_key_replaces(tmp_path: Path) -> None:
    store = Store(tmp_path / "r.sqlite")
    store.add([RESULT, replace(RESULT, seed=1)])
    newer = replace(RESULT, value=0.95, run="again", seconds=3.0)
    store.add([newer])
    assert store.rows() == [newer, replace(RESULT, seed=1)]


@pytest.mark.parametrize(
    "change",
    [
        {"online": True}, {"encoder": "Other"}, {"labels": 10}, {"protocol": "probe@2"}, {"split": "validation"},
        {"weights": "w1"}, {"data_hash": "d1"}, {"recipe": "77ab"}, {"fold": 1}, {"seed": 1}, {"name": "mine"},
        {"checkpoint": "c1"}, {"task": "faces"}, {"method": "BYOL"}, {"role": "supervised"},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_another_key_does_not_replace(tmp_path: Path, change: dict[str, object]) -> None:
    store = Store(tmp_path / "r.sqlite")
    store.add([RESULT, replace(RESULT, **change)])  # type: ignore[arg-type]
    assert len(store.rows()) == 2


def test_a_run_folder_that_was_overwritten_takes_its_old_results_with_it(tmp_path: Path) -> None:
    store, other = Store(tmp_path / "r.sqlite"), replace(RESULT, run="image/simclr-1", seed=1)
    store.add([RESULT, replace(RESULT, metric="macro_f1", main=False), other])
    changed = replace(RESULT, recipe="77ab", value=0.5)
    store.add([changed], instead_of=RESULT.run)
    assert store.rows() == [other, changed]


def test_results_of_the_schema_before_are_read_and_added_to(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    Store(path).add([RESULT])
    with sqlite3.connect(path) as db:
        db.execute("ALTER TABLE results DROP COLUMN chosen_on")
        db.execute("PRAGMA user_version = 2")
    newer = replace(RESULT, seed=1, chosen_on=500)
    Store(path).add([newer])
    assert Store(path).rows() == [RESULT, newer]
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (3,)


def test_results_of_an_older_schema_are_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    Store(path).add([RESULT])
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 1")
    with pytest.raises(UserError, match=r"older ssl_suite \(schema 1\).*move it away and run again"):
        Store(path)


def test_the_identity_is_of_the_run_not_of_the_number() -> None:
    same = replace(RESULT, value=0.1, metric="macro_f1", seconds=1.0, run="elsewhere", created="", version="9")
    assert same.identity == RESULT.identity
    assert replace(RESULT, weights="w1").identity != RESULT.identity


def test_filters(tmp_path: Path) -> None:
    store = Store(tmp_path / "r.sqlite")
    store.add([replace(RESULT, seed=seed, online=seed == 2) for seed in range(4)])
    assert [row.seed for row in store.rows(seed=[1, 3])] == [1, 3]
    assert [row.seed for row in store.rows(online=True)] == [2]
    assert store.rows(task="digits' OR 1=1 --") == []
    assert store.rows(seed=[]) == []
    with pytest.raises(UserError, match="no column 'colour'"):
        store.rows(colour="red")


def test_all_or_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "r.sqlite")
    with pytest.raises(ValueError, match="could not convert"):
        store.add([RESULT, replace(RESULT, seed=1, value="not a number")])  # type: ignore[arg-type]
    assert store.rows() == []


@pytest.mark.parametrize("change", [{"role": "best"}, {"direction": "up"}])
def test_a_result_has_a_known_role_and_direction(change: dict[str, str]) -> None:
    with pytest.raises(UserError, match="is"):
        replace(RESULT, **change)  # type: ignore[arg-type]


def test_other_files_are_refused_and_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to be looked at as if it were one. " * 20)
    with pytest.raises(UserError, match=r"notes\.txt is not a results store"):
        Store(text)
    assert text.read_text().startswith("not a database")
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE results (a)")
    with pytest.raises(UserError, match="not a results store"):
        Store(foreign)
    with pytest.raises(UserError, match="Cannot use"):
        Store(tmp_path)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    Store(path).add([RESULT])
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(UserError, match="newer ssl_suite"):
        Store(path)


def test_threads_and_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    script = (
        "import sys; sys.path[:0] = sys.argv[3:]\n"
        "from dataclasses import replace\n"
        "from results import RESULT\n"
        "from ssl_suite.bench.store import Store\n"
        "for i in range(20): Store(sys.argv[1]).add([replace(RESULT, method=sys.argv[2], seed=i)])\n"
    )
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    command = [sys.executable, "-c", script, str(path)]
    processes = [subprocess.Popen([*command, f"process {i}", *folders]) for i in range(2)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: Store(path).add([replace(RESULT, method="thread", seed=i)]), range(40)))
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert len(Store(path).rows()) == 80


def test_json_has_no_nan() -> None:
    records = json.loads(to_json([replace(RESULT, value=math.nan), RESULT]))
    assert records[0]["value"] is None
    assert records[1]["value"] == 0.91
    assert records[1]["online"] is False
