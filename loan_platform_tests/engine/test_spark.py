"""Spark gives what DuckDB gives: every row, feature and count, on one machine and on executors.

Real books where they are at hand, else the stand-ins. Here: both engines over the same Parquet
files. Not here: which SQL is refused (`loan_platform_tests/contract/test_spark.py`).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loan_platform import engine
from loan_platform.contract import Contract
from loan_platform.contract.portfolio import PLATFORM_COLUMNS, Source
from loan_platform.contract.portfolios import contract_files
from loan_platform.contract.reading import read_contract
from loan_platform.contract.sql import features_sql, typed_sql
from loan_platform.drift.counts import Bins, count, fit_bins
from loan_platform.engine.duck import DuckEngine
from loan_platform.engine.home import Home
from loan_platform.engine.spark import SparkEngine, SparkError
from loan_platform.ingest.admission import accepted_sql, refused_sql
from loan_platform.ingest.cleaning import clean
from loan_platform.ingest.source import locate
from loan_platform.ingest.staging import STAGED, open_book
from loan_platform_tests.conftest import REAL_DATA
from loan_platform_tests.ingest import taking_in

HAS_JAVA = shutil.which(Path(os.environ.get("JAVA_HOME", ""), "bin/java")) or shutil.which("java")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("pyspark") is None, reason="needs pyspark: pip install 'loan-platform[spark]'"
    ),
    pytest.mark.skipif(not HAS_JAVA, reason="needs Java 17: apt-get install default-jre-headless"),
]

LOCAL, CLUSTER = "local[2]", "local-cluster[2,1,1024]"
PORTFOLIOS = [file.parent.name for file in contract_files()]
ON_CLUSTER = ("credit_risk",)  # with repeated rows and dealt months
SAMPLED_ROWS = 3_000  # of each book, where two more JVMs start cold

# Spark's own settings, as an operator sets them: a short run on few cores is mostly Java's
# compiling and looking through classes.
JAVA = (
    "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC "
    "-XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote"
)
DEFAULTS = f"""
spark.driver.extraJavaOptions {JAVA}
spark.executor.extraJavaOptions {JAVA}
spark.sql.shuffle.partitions {{partitions}}
"""


@dataclass(frozen=True)
class Staged:
    """A book's staged rows, the verdict on each, and the bins of its features."""

    contract: Contract
    rows: list[Path]
    judged: Path
    bins: Bins


@pytest.fixture(scope="module")
def spark_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Spark as it is installed, with settings and a folder for the executors' logs of its own."""
    import pyspark

    folder = tmp_path_factory.mktemp("spark")
    for part in ("bin", "jars"):
        (folder / part).symlink_to(Path(pyspark.__file__).parent / part)
    (folder / "conf").mkdir()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SPARK_HOME", str(folder))
        environment.setenv("SPARK_SCALA_VERSION", "2.13")
        environment.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        environment.delenv("SPARK_CONF_DIR", raising=False)
        yield folder


@pytest.fixture(scope="module", params=[LOCAL, CLUSTER])
def master(request: pytest.FixtureRequest, spark_home: Path) -> Iterator[str]:
    """A session on that master, in a JVM of its own."""
    from pyspark import SparkContext

    partitions = 1 if request.param == LOCAL else 2
    (spark_home / "conf/spark-defaults.conf").write_text(DEFAULTS.format(partitions=partitions))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LOAN_PLATFORM_SPARK", request.param)
        SparkEngine()
        yield request.param
        context = SparkContext.getOrCreate()
        gateway = SparkContext._gateway
        context.stop()
        assert gateway is not None
        gateway.shutdown()
        gateway.proc.stdin.close()
        gateway.proc.wait(timeout=30)
        SparkContext._gateway = SparkContext._jvm = None


@pytest.fixture(scope="module")
def books() -> dict[str, Staged]:
    """What `stage` made already: each book is read once."""
    return {}


@pytest.fixture
def staged(
    request: pytest.FixtureRequest,
    master: str,
    books: dict[str, Staged],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Staged:
    """All rows of the portfolio's book, or a sample on the cluster."""
    if REAL_DATA:
        monkeypatch.setenv("LOAN_DATA_DIR", REAL_DATA)
    name = request.param
    if name not in books:
        books[name] = stage(name, tmp_path_factory.mktemp(name))
    return books[name] if master == LOCAL else sample(books[name], tmp_path_factory.mktemp(name))


def stage(portfolio: str, folder: Path) -> Staged:
    """Stage a book with DuckDB, as every book is."""
    contract = read_contract(next(f for f in contract_files() if f.parent.name == portfolio))
    made = DuckEngine()
    rows, judged, features = (folder / f"{layer}.parquet" for layer in ("rows", "judged", "f"))
    with open_book(contract, locate(contract, Home.at(folder / "home"))) as book:
        shutil.copy(book.staged(), rows)
    made.write(typed_sql(contract, "staged", STAGED[1:]), judged, staged=[rows])
    cleaned = features_sql(contract, f"({accepted_sql(contract, 'judged')}) AS accepted")
    made.write(cleaned, features, judged=[judged])
    return Staged(contract, [rows], judged, fit_bins(contract, [features]))


def sample(book: Staged, folder: Path) -> Staged:
    """Every refused row and some of the others, in two files, one for each executor."""
    every = max(1, pq.read_metadata(book.judged).num_rows // SAMPLED_ROWS)
    halves = [folder / "rows-0.parquet", folder / "rows-1.parquet"]
    for half, path in enumerate(halves):
        DuckEngine().write(
            "SELECT staged.* FROM staged JOIN judged ON judged._row = staged._row "
            f"WHERE (staged._row % {every} = 0 OR _rules <> '') AND staged._row // 2 % 2 = {half}",
            path,
            staged=book.rows,
            judged=[book.judged],
        )
    return replace(book, rows=halves)


def taken_in(contract: Contract, book: Staged, folder: Path, master: str) -> dict[str, str]:
    """Every layer of the book as the contract's engine makes it, as a hash.

    On the cluster without the words for refused rows: a short run is mostly compiling statements.
    """
    folder.mkdir()
    runs = engine.of(contract)
    layers = ("judged", "raw_loans", "refused", "cleaned_features")
    judged, raw, refused, cleaned = (folder / f"{layer}.parquet" for layer in layers)
    runs.write(typed_sql(contract, "staged", STAGED[1:]), judged, staged=book.rows)
    accepted = runs.write(accepted_sql(contract, "judged") + " ORDER BY _row", raw, judged=[judged])
    if master == LOCAL:
        sql = refused_sql(contract, "staged") + " ORDER BY _at"
        runs.write(sql, refused, judged=[judged], staged=book.rows)
    runs.write(features_sql(contract, "raw_loans", also=PLATFORM_COLUMNS), cleaned, raw_loans=[raw])
    counts = count(contract, book.bins, [cleaned])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, counts.schema) as stream:
        stream.write_table(counts.combine_chunks())
    written = {path.stem: path.read_bytes() for path in (raw, refused, cleaned) if path.is_file()}
    written["feature_counts"] = sink.getvalue().to_pybytes()
    hashes = {layer: hashlib.sha256(content).hexdigest() for layer, content in written.items()}
    return hashes | {"rows": f"{accepted} accepted"}


@pytest.mark.parametrize("staged", ON_CLUSTER, indirect=True)
def test_every_layer_of_a_book_is_the_same_to_the_byte(staged: Staged, master: str, tmp_path: Path):
    """Another engine, other rows, features or counts: the drift of a cluster, not of borrowers."""
    on_spark = staged.contract.model_copy(update={"engine": "spark"})
    found = taken_in(on_spark, staged, tmp_path / "spark", master)
    assert found == taken_in(staged.contract, staged, tmp_path / "duckdb", master)
    assert len(found) == (5 if master == LOCAL else 4)


@pytest.mark.parametrize("master", [LOCAL], indirect=True)
@pytest.mark.parametrize("staged", [n for n in PORTFOLIOS if n not in ON_CLUSTER], indirect=True)
def test_every_layer_of_another_book_is_the_same_too(staged: Staged, master: str, tmp_path: Path):
    test_every_layer_of_a_book_is_the_same_to_the_byte(staged, master, tmp_path)


@pytest.mark.parametrize("master", [LOCAL], indirect=True)
def test_a_month_is_admitted_and_cleaned_by_the_engine_its_contract_names(
    master: str, home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """engine: spark must reach every step of ingestion, and change nothing in it."""
    lines = [*taking_in.good_lines(40), "12,x,car,0", "99999,1,car,0", "1000,0,home,0", "oops"]
    path = tmp_path / "small.csv"
    path.write_text(taking_in.small_book(*lines))
    told, layers = [], []
    for name in ("duckdb", "spark"):
        contract = taking_in.REPLAYED.model_copy(
            update={"engine": name, "source": Source(path=str(path))}
        )
        taken = taking_in.take_in(contract, home)
        (month,) = taken.admissions
        told.append(taken)
        layers.append(
            (
                clean(contract, home, month),
                taking_in.read(home, contract, "cleaned_features", [month]),
            )
        )
    assert told[1] == told[0]
    assert layers[1] == layers[0]
    assert told[0].admissions["2024-11"].quarantined == 4


def test_executors_are_processes_of_their_own(master: str):
    """A cluster test that runs in the driver proves nothing about a cluster."""
    executors = [
        process
        for process in psutil.Process().children(recursive=True)
        if process.status() != psutil.STATUS_ZOMBIE
        and any("CoarseGrainedExecutorBackend" in word for word in process.cmdline())
    ]
    assert len(executors) == (2 if master == CLUSTER else 0)


NASTY = (
    *("1_000", "+-5", "--5", "+5", "-5", "5d", "5D", "1f", "0x10", "1e5", "1E+5", "1e", "e5", "."),
    *(".5", "5.", "-.5e-3", "NaN", "nan", "inf", "Infinity", "-infinity", "1e400", "-1e400"),
    *("1e-400", "5e-324", "1.7976931348623157e308", "1.7976931348623159e308", "0", "-0", "-0.0"),
    *("9007199254740992", "9007199254740993", "-9007199254740993", "9223372036854775807", "1e19"),
    *("0.1", "0.30000000000000004", "123456789012345678901234567890", "2.5", "1,5", "1.234,5"),
    *("1,234", "1,23", "$5", "5%", " 12 ", "\t12", "12\t", "12\n", "\n12", "12\r\n", "12\v"),
    *("\N{NO-BREAK SPACE}12", "12\N{NO-BREAK SPACE}", "1\N{NO-BREAK SPACE}234,5", "1 2", "1|2"),
    *("\N{ARABIC-INDIC DIGIT ONE}\N{ARABIC-INDIC DIGIT TWO}", "\N{FULLWIDTH DIGIT ONE}", "½"),
    *("", " ", "\N{ZERO WIDTH SPACE}", "a'b", 'a"b', "a\\nb", "\\", "NULL", "null", "true", "n/a"),
    *("10+ years", "< 1 year", "10+ Years", "2 years", "red", "RED", "rot ", "Straße", "STRASSE"),
    *("2024-02-29", "2024-02-30", "2023-02-29", "2024-2-9", "2024/02/29", "20240229", "2024-13-01"),
    *("0000-01-01", "0001-01-01", "9999-12-31", "10000-01-01", "1582-10-10", "epoch", "today"),
    *("2024-02-29 10:00", "2024-02-29T10:00:00Z", "2024-02-29 10:00:00+05", "2024-02-29 "),
    *("2024-02-29 25:00", "2024-02-29x", "2024", "2024-02", "29.02.2024", "31.04.2024"),
    *("Aug-2001", "aug-2001", "AUG-2001", "August-2001", "Aug-01", "Feb-0000", "Sept-2001"),
    *("1e309", "00012", "+.5", "+.e1", "1e+", "1__0", "٣", "1'000", "(5)", "5-", "1e5.5"),
)

READING_ANYTHING = Contract.model_validate(
    {
        "name": "nasty",
        "title": "Every notation a column may have",
        "source": {"path": "nasty.csv"},
        "time": {"replay": {"start": "2024-01-01", "periods": 1}},
        "outcome": {"bad": ["bad", "5"], "good": ["good", "0"], "matures_after_days": 30},
        "columns": [
            {"name": "number", "type": "number", "range": [-10, 1e6]},
            {"name": "A Number.", "type": "number", "nulls": "allowed"},
            {"name": "whole", "type": "integer", "range": [0, 100], "nulls": "allowed"},
            {"name": "day", "type": "date", "role": "input"},
            {"name": "month", "type": "date", "role": "input", "format": "%b-%Y"},
            {"name": "german", "type": "date", "role": "input", "format": "%d.%m.%Y"},
            {"name": "amount", "type": "number", "remove": ["$", "%", ","], "nulls": "allowed"},
            {"name": "betrag", "type": "number", "decimal": ",", "nulls": "allowed"},
            {"name": "years", "type": "integer", "nulls": "allowed",
             "values": {"10+ years": 10, "< 1 year": 0, "2 years": 2, "n/a": None}},
            {"name": "colour", "type": "category", "categories": ["red", "rot", "Straße"],
             "values": {"RED": "red"}},
            {"name": "words", "type": "text", "role": "protected"},
            {"name": "outcome", "type": "category", "role": "outcome",
             "categories": ["bad", "good", "5", "0"]},
        ],
        "rules": [
            {"name": "odd", "refuse_when": "number > 5 AND whole < 5 OR colour = 'rot'",
             "reason": "odd"}
        ],
        "features": {
            "days": {"sql": "date_diff('day', month, day) + date_diff('day', german, day)"}
        },
    }
)  # fmt: skip


@pytest.mark.parametrize("master", [LOCAL], indirect=True)
def test_nasty_texts_are_read_alike(master: str, tmp_path: Path):
    """Engines have their own ideas of a number and a date: 5d, 1_000, 2024-2-9, a line break."""
    names = [column.name for column in READING_ANYTHING.columns]
    rows = [
        {"_row": number, "_origin": origin, **dict.fromkeys(names, text)}
        for number, (text, origin) in enumerate(itertools.product(NASTY, ("book", "service")))
    ]
    rows.append({"_row": len(rows), "_origin": "book"})
    file = tmp_path / "nasty.parquet"
    types = [("_row", pa.int64()), ("_origin", pa.string()), *((n, pa.string()) for n in names)]
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(types)), file)
    sql = f"{typed_sql(READING_ANYTHING, 'nasty')} ORDER BY _row"
    expected = DuckEngine().query(sql, nasty=[file])
    found = SparkEngine().query(sql, nasty=[file])
    assert found.schema == expected.schema
    differing = [
        (row["number"], ours, theirs)
        for row, ours, theirs in zip(rows, expected.to_pylist(), found.to_pylist(), strict=True)
        if repr(ours) != repr(theirs)
    ]
    assert differing == []
    assert expected.num_rows - expected["number"].null_count > 30


EXACT = (
    *("x / y", "n / m", "x / nullif(y, 0)", "n / 3 / m", "(x + y) / (x - y)", "n % 7", "-n % 7"),
    *("x % nullif(y, 0)", "n % nullif(m, 0)", "greatest(x / y, 0)", "least(n, x, 5)", "x * 0.1"),
    *("n * 0.1", "n / 0.3", "0.1 + 0.2", "n * 1.5 / 7", "floor(x)", "ceil(x)", "floor(n / 7)"),
    *("ceil(-n / 7.0)", "round(x)", "round(n / 2)", "TRY_CAST(x / 4 AS bigint)", "abs(x)", "-x"),
    *("CAST(n / 2.0 AS bigint)", "CAST(x > y AS integer)", "CAST(x = y AS double)", "sign(x)"),
    *("TRY_CAST(x AS bigint)", "CAST(n AS double)", "sqrt(abs(x))", "x ** 2", "pow(n, 2)"),
    *("CASE WHEN x > y THEN 1 WHEN x = y THEN 2 ELSE 3 END", "if(x IS NULL, 1, 2)"),
    *("CASE WHEN x IS DISTINCT FROM y THEN 1 END", "coalesce(x, y, 0)", "nullif(x, y)"),
    *("CASE WHEN x / y > 3 THEN 1 ELSE 0 END", "CASE WHEN x BETWEEN -1 AND 1 THEN x END"),
    *("CASE WHEN n IN (1, 2, 7) THEN 1 ELSE 0 END", "CASE WHEN NOT (x <= y) THEN 1 ELSE 0 END"),
    *("length(t)", "length(lower(t))", "CASE WHEN t LIKE 'a%' THEN 1 ELSE 0 END"),
    *("strpos(t, 'b')", "CASE WHEN contains(t, '.') THEN 1 END", "length(replace(t, 'a', 'bb'))"),
    *("CASE WHEN starts_with(t, 'a') THEN 1 END", "length(trim(t, ' '))", "length(t || 'x')"),
    *("length(concat_ws('-', t, NULL, 'x'))", "length(substring(t, 2, 3))", "length(substr(t, 2))"),
    *("CASE WHEN regexp_matches(t, '^a.b$') THEN 1 ELSE 0 END", "length(lpad(t, 3, '0'))"),
    *(r"CASE WHEN regexp_matches(t, '\d+[.]?\d*$') THEN 1 ELSE 0 END",),
    *("CASE WHEN t < 'b' THEN 1 END", "length(regexp_replace(t, '[ab]', '-', 'g'))"),
    *(r"length(regexp_extract(t, '^([a-z])\.?', 1))",),
    *("date_diff('day', d, e)", "date_diff('day', e, d) / 365.25", "year(d)", "quarter(d)"),
    *("month(d) + 100 * day(e)", "extract(year FROM e)", "year(e + INTERVAL 30 DAY)"),
    *("CASE WHEN d < DATE '2024-03-01' THEN 1 ELSE 0 END", "(year(e) - year(d)) * 12"),
)  # fmt: skip
# From another mathematical library: its last digit may differ.
LAST_DIGIT = (
    *("CASE WHEN x > 0 THEN ln(x) END", "CASE WHEN x > 0 THEN log(x) END", "exp(x / 1e300)"),
    *("CASE WHEN x > 0 THEN log10(x) END", "CASE WHEN x > 0 THEN log2(x) END", "exp(n / 100)"),
    *("CASE WHEN x > 0 THEN pow(x, 0.3) END",),
)


@pytest.mark.parametrize("master", [LOCAL], indirect=True)
def test_expressions_mean_the_same(master: str, tmp_path: Path):
    """What parses in both engines and differs: log, halves, division by zero, NaN, months."""
    numbers = [0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5, 0.1, 3.0, 1e300, -1e300, 5e-324]
    numbers += [0.49999999999999994, 4503599627370497.5, 1e19, float("nan"), float("inf")]
    wholes = [0, 1, 2, 3, 5, 7, -5, -7, 1_000_003, 2**31]
    texts = ["", "a", "a.b", "a\nb", "axb", "a.b\n", " a ", "ab.5", "Äa", "b", "12.5", "5.\n"]
    days = [
        dt.date.fromisoformat(day)
        for day in ("2024-02-29", "1999-12-31", "2024-03-01", "1970-01-01")
    ]
    pairs = list(itertools.product([None, *numbers], repeat=2))
    at = range(len(pairs))
    file = tmp_path / "grid.parquet"
    columns: dict[str, Any] = {
        "x": pa.array([x for x, _ in pairs], pa.float64()),
        "y": pa.array([y for _, y in pairs], pa.float64()),
        "n": pa.array([wholes[i % 10] if i % 11 else None for i in at], pa.int64()),
        "m": pa.array([wholes[i // 10 % 10] for i in at], pa.int64()),
        "t": pa.array([texts[i % 12] if i % 13 else None for i in at], pa.string()),
        "d": pa.array([days[i % 4] for i in at], pa.date32()),
        "e": pa.array([days[i // 4 % 4] if i % 5 else None for i in at], pa.date32()),
    }
    pq.write_table(pa.table(columns), file)
    asked = (*EXACT, *LAST_DIGIT)
    values = ", ".join(f"CAST(({e}) AS double) AS v{i}" for i, e in enumerate(asked))
    expected = DuckEngine().query(f"SELECT {values} FROM grid", grid=[file])
    found = SparkEngine().query(f"SELECT {values} FROM grid", grid=[file])
    differing = {}
    for expression, ours, theirs in zip(asked, expected.columns, found.columns, strict=True):
        a, b = (c.to_numpy(zero_copy_only=False).astype(float) for c in (ours, theirs))
        same = (ours.is_null().to_numpy() == theirs.is_null().to_numpy()) & (
            (a == b) | (np.isnan(a) & np.isnan(b))
        )
        if expression in LAST_DIGIT:
            with np.errstate(invalid="ignore"):
                same |= np.abs(a - b) <= 2 * np.spacing(np.abs(a))
        if not same.all():
            first = int(np.flatnonzero(~same)[0])
            row = {name: column[first].as_py() for name, column in columns.items()}
            differing[expression] = (row, a[first], b[first])
    assert differing == {}


def test_a_failing_statement_names_no_value(
    master: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    """Spark's errors quote the row they met, and pyspark logs them before it raises them."""
    file = tmp_path / "one.parquet"
    pq.write_table(pa.table({"name": ["Jane Applicant"] * 3}), file)
    with pytest.raises(SparkError, match="CAST_INVALID_INPUT") as refused:
        SparkEngine().query("SELECT CAST(name AS double) AS x FROM people", people=[file])
    told = [str(refused.value), *capfd.readouterr()]
    assert not [text for text in told if "Jane" in text]
    assert refused.value.__suppress_context__


def test_file_names_are_no_patterns(master: str, tmp_path: Path):
    """A * or [ in a path must not take in other files."""
    for name, n in (("it's [1] *.parquet", 1), ("it's 1 x.parquet", 2)):
        pq.write_table(pa.table({"n": [n]}), tmp_path / name)
    found = SparkEngine().query("SELECT n FROM r", r=[tmp_path / "it's [1] *.parquet"])
    assert found.to_pydict() == {"n": [1]}


def test_without_java_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(SparkError, match="apt-get install"):
        SparkEngine()
