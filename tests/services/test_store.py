"""The file in which undelivered results wait: what happens to it when the machine, the disk or a person misbehaves."""

import contextlib
import logging
import os
import re
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from avtomatika_worker.delivery.sqlite_store import WRITE_TIMEOUT, Kind, Message, SqliteStore
from avtomatika_worker.delivery.store import Store
from avtomatika_worker.delivery.store_schema import _SCHEMA
from avtomatika_worker.errors import ConfigError, StoreError


def message(task_id, body=b"body"):
    return Message("http://o.test", Kind.RESULT, task_id, body, 1_700_000_000.5)


@pytest.fixture
def store(tmp_path):
    store = SqliteStore(tmp_path / "state", "w1")
    assert store.open() == []
    yield store
    store.close()


def reopened(store):
    store.close()
    again = SqliteStore(store.path.parent, "w1")
    try:
        return again.open()
    finally:
        again.close()


def test_stored_messages_survive_a_restart_in_order_and_forgotten_ones_do_not(store):
    rows = [store.put(message(f"t{number}")).result() for number in range(5)]
    store.forget(rows[1])
    assert reopened(store) == [(rows[n], message(f"t{n}")) for n in (0, 2, 3, 4)]


def test_only_its_owner_can_read_it(store):
    store.put(message("t1")).result()
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700
    others = [path for path in store.path.parent.iterdir() if stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert others == []


class Watched(type(Path())):
    """A path that logs which mode its file had before it is changed."""

    def chmod(self, mode, **how):
        logging.getLogger("modes").warning("%s %o", self.name, stat.S_IMODE(self.stat().st_mode))
        super().chmod(mode, **how)


def test_not_even_for_a_moment_can_others_read_it(tmp_path, caplog):
    for _ in range(2):
        store = SqliteStore(Watched(tmp_path), "w1")
        store.open()
        store.close()
    assert caplog.messages == [f"{store.path.name} 600"]  # the second time it is there


def test_a_second_process_with_the_same_id_is_refused_and_says_why(store):
    code = f"""
        from pathlib import Path
        from avtomatika_worker.errors import ConfigError
        from avtomatika_worker.delivery.sqlite_store import SqliteStore
        try:
            SqliteStore(Path({str(store.path.parent)!r}), "w1").open()
        except ConfigError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert "WORKER_ID=w1" in done.stdout
    assert str(store.path) in done.stdout
    assert reopened(store) == []  # whoever had it goes on


def test_a_second_store_with_the_same_id_is_refused_with_what_to_do(store):
    with pytest.raises(ConfigError) as refused:
        SqliteStore(store.path.parent, "w1").open()
    problem = f"WORKER_ID=w1: another process with this id runs here and owns {store.path}"
    assert refused.value.problems == (f"{problem}; give each worker an id of its own, or stop the other one",)
    assert isinstance(refused.value.__cause__, sqlite3.OperationalError)


def test_another_id_has_a_file_of_its_own(store):
    other = SqliteStore(store.path.parent, "w2")
    assert other.open() == []
    other.put(message("other")).result()
    other.close()
    assert reopened(store) == []


def test_what_was_reported_safe_survives_kill_9_at_any_moment(tmp_path):
    code = f"""
        import sys
        from pathlib import Path
        from avtomatika_worker.delivery.sqlite_store import Kind, Message, SqliteStore
        store = SqliteStore(Path({str(tmp_path)!r}), "w1")
        store.open()
        for number in range(100_000):
            put = store.put(Message("http://o.test", Kind.RESULT, str(number), b"x" * 2000, 0.0))
            put.result()
            print(number, flush=True)
    """
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
        with process:
            for line in process.stdout:
                if line.strip() == "37":
                    process.send_signal(signal.SIGKILL)
        store = SqliteStore(tmp_path, "w1")
        rows = store.open()
        assert {str(number) for number in range(38)} <= {stored.task_id for _, stored in rows}
        for row, _ in rows:
            store.forget(row)
        store.close()


def test_a_damaged_file_is_set_aside_loudly_and_a_new_one_begun(store, caplog):
    for number in range(200):
        store.put(message(f"t{number}", os.urandom(500))).result()
    store.close()
    content = bytearray(store.path.read_bytes())
    content[4096 : 4096 + 20_000] = os.urandom(20_000)
    store.path.write_bytes(content)
    again = SqliteStore(store.path.parent, "w1")
    with caplog.at_level(logging.ERROR):
        assert again.open() == []
    again.put(message("new")).result()
    again.close()
    assert [record.action for record in caplog.records] == ["store_corrupt"]
    aside = [path for path in store.path.parent.iterdir() if ".corrupt-" in path.name]
    assert bytes(content) in [path.read_bytes() for path in aside]


def test_a_file_that_sqlite_can_open_and_finds_faults_in_is_set_aside_with_the_fault(store, caplog):
    store.close()
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as connection:
        connection.execute("DROP TABLE waiting")
        connection.execute(_SCHEMA.replace("url TEXT NOT NULL", "url TEXT"))
        connection.execute("INSERT INTO waiting VALUES (1, NULL, 'result', 't1', x'80', 1.0)")
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_master SET sql = ?", (_SCHEMA.strip(),))
    caplog.clear()
    assert reopened(store) == []
    assert [record.action for record in caplog.records] == ["store_corrupt"]
    assert "(NULL value in waiting.url)" in caplog.text


def test_a_file_that_is_not_a_database_is_set_aside(tmp_path):
    (tmp_path / "outbox-w1.sqlite3").write_bytes(b"not a database, but long enough to be looked at" * 100)
    store = SqliteStore(tmp_path, "w1")
    assert store.open() == []
    store.close()
    assert any(".corrupt-" in path.name for path in tmp_path.iterdir())


def test_a_file_of_a_newer_version_is_left_alone(store):
    import sqlite3

    store.close()
    with sqlite3.connect(store.path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(
        StoreError, match=f"^{re.escape(str(store.path))} was written by a newer version of this worker$"
    ):
        SqliteStore(store.path.parent, "w1").open()


def test_a_directory_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way", "utf-8")
    state = tmp_path / "file" / "state"
    with pytest.raises(StoreError) as refused:
        SqliteStore(state, "w1").open()
    problem = f"{state} cannot be used for results: not a directory"
    assert str(refused.value) == f"{problem}; name a directory that this user may write to"


def test_a_directory_that_others_may_write_to_is_refused_with_the_reason(tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(StoreError) as refused:
        SqliteStore(tmp_path, "w1").open()
    problem = f"{tmp_path} cannot be used for results: {tmp_path} is writable by others"
    assert str(refused.value) == f"{problem}; name a directory that this user may write to"


def test_a_path_that_sqlite_cannot_open_is_named_with_its_reason(tmp_path):
    store = SqliteStore(tmp_path.joinpath(*["long" * 50] * 4), "w1")  # SQLite takes 512 characters
    with pytest.raises(StoreError) as refused:
        store.open()
    assert str(refused.value) == f"{store.path} cannot be used for results: unable to open database file"
    assert isinstance(refused.value.__cause__, sqlite3.OperationalError)


def test_a_full_disk_refuses_what_does_not_fit_until_there_is_room(tmp_path):
    code = f"""
        import resource, signal, sys
        from pathlib import Path
        from avtomatika_worker.errors import ConfigError, StoreError
        from avtomatika_worker.delivery.sqlite_store import Kind, Message, SqliteStore
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        store = SqliteStore(Path({str(tmp_path)!r}), "w1")
        store.open()
        put = lambda name, size: store.put(Message("http://o.test", Kind.RESULT, name, b"x" * size, 0.0))
        put("before", 10).result()
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        try:
            put("full", 2_000_000).result()
        except StoreError as error:
            print("refused:", error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        put("after", 2_000_000).result()
        store.close()
    """
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert "refused:" in done.stdout
    assert "cannot be written" in done.stdout
    store = SqliteStore(tmp_path, "w1")
    assert [stored.task_id for _, stored in store.open()] == ["before", "after"]
    store.close()


def test_an_empty_file_of_a_random_id_is_not_left_behind(tmp_path):
    for task_ids in ([], ["t1"]):
        store = SqliteStore(tmp_path, "random", temporary=True)
        store.open()
        rows = [store.put(message(task_id)).result() for task_id in task_ids]
        assert store.path.exists()
        store.close()
        assert store.path.exists() is bool(rows)


def test_a_directory_in_place_of_the_file_of_a_random_id_is_left_alone(tmp_path):
    store = SqliteStore(tmp_path, "random", temporary=True)
    store.open()
    store.path.unlink()
    store.path.mkdir()
    store.close()
    assert store.path.is_dir()


def test_a_file_that_can_no_longer_be_read_is_released_too(store, caplog):
    for number in range(3_000):  # more than SQLite keeps in memory
        store.put(message(f"t{number}", os.urandom(1_000)))
    store.close()
    again = SqliteStore(store.path.parent, "w1")
    assert len(again.open()) == 3_000
    os.truncate(again.path, 4096)
    assert reopened(again) == []
    assert [record.action for record in caplog.records] == ["store_corrupt"]


def wrong_shape(path, statements):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)
    path.chmod(0o600)


COLUMNS = "id, url, kind, task_id, message, created"


def filled(path, rows=100):
    store = SqliteStore(path.parent, "w1")
    store.open()
    for number in range(rows):
        store.put(message(f"t{number}", os.urandom(500))).result()
    return store


def truncated(path, part):
    filled(path).close()
    os.truncate(path, int(path.stat().st_size * part))


def log_alone(path, lose):
    """Leave what a process that was killed has written to the log only, and lose the file."""
    code = f"""
        import os
        from pathlib import Path
        from avtomatika_worker.delivery.sqlite_store import Kind, Message, SqliteStore
        store = SqliteStore(Path({str(path.parent)!r}), "w1")
        store.open()
        store.put(Message("http://o.test", Kind.RESULT, "t", b"body", 0.0)).result()
        os._exit(0)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
    assert Path(f"{path}-wal").stat().st_size > 0
    Path(f"{path}-shm").touch(mode=0o600)
    lose(path)


PLANTED = {
    "another table": lambda path: wrong_shape(path, "CREATE TABLE other (a); PRAGMA user_version=1"),
    "other columns": lambda path: wrong_shape(path, "CREATE TABLE waiting (id, body); PRAGMA user_version=1"),
    "no version": lambda path: wrong_shape(path, "CREATE TABLE waiting (id, body)"),
    "an odd version": lambda path: wrong_shape(path, "PRAGMA user_version=-7"),
    "a view": lambda path: wrong_shape(
        path, f"CREATE VIEW waiting ({COLUMNS}) AS SELECT 1, 'u', 'result', 't', x'80', 1.0; PRAGMA user_version=1"
    ),
    "a trigger": lambda path: wrong_shape(
        path,
        f"{_SCHEMA}; CREATE TRIGGER no BEFORE INSERT ON waiting BEGIN SELECT RAISE(ABORT, 'no'); END;"
        "PRAGMA user_version=1",
    ),
    "other types": lambda path: wrong_shape(path, f"CREATE TABLE waiting ({COLUMNS}); PRAGMA user_version=1"),
    "more tables": lambda path: wrong_shape(path, f"{_SCHEMA}; CREATE TABLE other (a); PRAGMA user_version=1"),
    "half a file": lambda path: truncated(path, 0.5),
    "less than a page": lambda path: truncated(path, 0.01),
    "a log without its file": lambda path: log_alone(path, Path.unlink),
    "a log beside an empty file": lambda path: log_alone(path, lambda file: file.write_bytes(b"")),
    "a directory for its log": lambda path: (path.touch(mode=0o600), Path(f"{path}-wal").mkdir()),
    "another's log alone": lambda path: (Path(f"{path}-wal").touch(), Path(f"{path}-wal").chmod(0o666)),
    "a directory": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a link": lambda path: path.symlink_to(path.parent / "elsewhere"),
    "a second name": lambda path: (path.touch(mode=0o600), (path.parent / "second").hardlink_to(path)),
    "a file that others may write to": lambda path: (path.touch(), path.chmod(0o666)),
}


NO_OUTBOX = "it is not an outbox of this version: version"
REASONS = {
    "another table": f"{NO_OUTBOX} 1, holding table other",
    "other columns": f"{NO_OUTBOX} 1, holding table waiting",
    "no version": f"{NO_OUTBOX} 0, holding table waiting",
    "an odd version": f"{NO_OUTBOX} -7, holding nothing",
    "a view": f"{NO_OUTBOX} 1, holding view waiting",
    "a trigger": f"{NO_OUTBOX} 1, holding table waiting, trigger no",
    "other types": f"{NO_OUTBOX} 1, holding table waiting",
    "more tables": f"{NO_OUTBOX} 1, holding table waiting, table other",
    "half a file": "database disk image is malformed",
    "less than a page": "database disk image is malformed",
    "a log without its file": "the file it belongs to is gone",
    "a log beside an empty file": "the file it belongs to is gone",
    "a directory for its log": "outbox-w1.sqlite3-wal is not a regular file",
    "another's log alone": "others may write to outbox-w1.sqlite3-wal",
    "a directory": "outbox-w1.sqlite3 is not a regular file",
    "a pipe": "outbox-w1.sqlite3 is not a regular file",
    "a link": "outbox-w1.sqlite3 is not a regular file",
    "a second name": "outbox-w1.sqlite3 has other hard links",
    "a file that others may write to": "others may write to outbox-w1.sqlite3",
}


def set_aside_line(path, why, suffix=""):
    """Return a pattern of the line about a file that is set aside."""
    name = f"{re.escape(path.name)}\\.corrupt-\\d{{8}}-\\d{{6}}-{os.getpid()}{suffix}"
    left = f"{re.escape(f'{path}{suffix} cannot be used ({why}): set aside as ')}"
    return f"{left}{name}; the results in it are not sent"


@pytest.mark.parametrize("what", PLANTED)
def test_a_file_that_is_not_a_store_of_this_user_is_set_aside_with_one_error(tmp_path, caplog, what):
    store = SqliteStore(tmp_path, "w1")
    PLANTED[what](store.path)
    assert store.open() == []
    store.put(message("t1")).result()
    assert [record.action for record in caplog.records] == ["store_corrupt"]
    assert caplog.records[0].exc_info is None
    suffix = "-wal" if what.startswith("a log") else ""
    assert re.fullmatch(set_aside_line(store.path, REASONS[what], suffix), caplog.messages[0])
    assert len(list(tmp_path.glob(f"*.corrupt-*{suffix}"))) >= 1
    assert len(list(tmp_path.glob("*.corrupt-*-shm"))) == what.startswith("a log")
    assert not (tmp_path / "elsewhere").exists()
    assert [each.task_id for _, each in reopened(store)] == ["t1"]


def invaded(path, plant):
    """Return a path where somebody else is always faster than SQLite."""

    class Invaded(type(path)):
        def chmod(self, mode, **how):
            super().chmod(mode, **how)
            plant(Path(self))

    return Invaded(path)


@pytest.mark.parametrize(
    ("plant", "reason"),
    [
        (lambda path: wrong_shape(path, "CREATE TABLE other (a)"), f"{NO_OUTBOX} 0, holding table other"),
        (lambda path: path.write_bytes(b"no database" * 100), "file is not a database"),
    ],
    ids=["another table", "no database"],
)
def test_a_file_that_is_no_store_again_once_it_was_set_aside_is_refused(tmp_path, caplog, plant, reason):
    store = SqliteStore(invaded(tmp_path, plant), "w1")
    with pytest.raises(StoreError) as refused:
        store.open()
    assert str(refused.value) == f"{store.path} cannot be used for results: {reason}"
    assert [record.action for record in caplog.records] == ["store_corrupt"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may give files away")
def test_a_file_of_another_user_is_set_aside(tmp_path, caplog):
    store = SqliteStore(tmp_path, "w1")
    store.path.touch(mode=0o600)
    os.chown(store.path, 12_345, 12_345)
    assert store.open() == []
    store.close()
    assert re.fullmatch(set_aside_line(store.path, "outbox-w1.sqlite3 belongs to another user"), caplog.messages[0])


@pytest.mark.parametrize("mode", [0o400, 0o601, 0o644])
def test_a_file_of_ours_is_made_private_and_writable(tmp_path, mode):
    store = SqliteStore(tmp_path, "w1")
    store.path.touch()
    store.path.chmod(mode)
    assert store.open() == []
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    store.close()


@pytest.mark.parametrize("look", [lambda store: store.check(), lambda store: store.put(message("t2")).result()])
def test_a_directory_that_disappears_is_recreated_with_all_messages(store, caplog, look):
    row = store.put(message("t1")).result()
    shutil.rmtree(store.path.parent)
    assert look(store)
    assert [record.action for record in caplog.records] == ["store_made_again"]
    assert caplog.messages == [f"{store.path} disappeared and was recreated with 1 results and events"]
    assert reopened(store)[0] == (row, message("t1"))


def test_a_directory_that_disappears_is_noticed_while_nothing_is_written(tmp_path):
    store = SqliteStore(tmp_path / "state", "w1", look_every=0.01)
    store.open()
    assert "store" in {thread.name for thread in threading.enumerate()}
    row = store.put(message("t1")).result()
    shutil.rmtree(store.path.parent)
    until = time.monotonic() + 20
    while not store.path.exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    assert reopened(store)[0] == (row, message("t1"))


def test_messages_whose_file_cannot_be_recreated_do_not_count_as_stored(store):
    store.put(message("t1")).result()
    shutil.rmtree(store.path.parent)
    store.path.parent.touch()  # no directory can be made there
    assert not store.check()
    with pytest.raises(StoreError, match=f"^{re.escape(str(store.path))} cannot be written: .*Not a directory"):
        store.put(message("t2")).result()


def test_a_message_that_sqlite_cannot_store_is_refused_with_the_reason(store, caplog):
    endless = Message("http://o.test", Kind.RESULT, "t1", b"body", 2**70)
    with pytest.raises(StoreError, match=f"^{re.escape(str(store.path))} cannot be written: Python int too large"):
        store.put(endless).result(WRITE_TIMEOUT)
    assert caplog.records == []
    assert reopened(store) == []


def test_a_file_that_cannot_be_recreated_on_a_full_disk_is_recreated_once_there_is_room(tmp_path):
    code = f"""
        import resource, signal, shutil
        from pathlib import Path
        from avtomatika_worker.errors import ConfigError, StoreError
        from avtomatika_worker.delivery.sqlite_store import Kind, Message, SqliteStore
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        store = SqliteStore(Path({str(tmp_path / "state")!r}), "w1")
        store.open()
        put = lambda name, size: store.put(Message("http://o.test", Kind.RESULT, name, b"x" * size, 0.0))
        for number in range(5):
            put(f"before {{number}}", 100_000).result()
        shutil.rmtree(store.path.parent)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        for name in ("full 0", "full 1"):
            try:
                put(name, 10).result()
            except StoreError as error:
                print(name, store.check())
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        put("after", 10).result()
        store.close()
    """
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout == "full 0 False\nfull 1 False\n"
    store = SqliteStore(tmp_path / "state", "w1")
    names = [stored.task_id for _, stored in store.open()]
    assert names == [*(f"before {number}" for number in range(5)), "after"]
    store.close()


@pytest.mark.parametrize("column", ["kind = 'other'", "task_id = x'80'", "message = 'text'", "created = 'yesterday'"])
def test_rows_that_are_not_messages_are_counted_and_the_others_are_sent(store, caplog, column):
    for number in range(4):
        store.put(message(f"t{number}")).result()
    store.close()
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as connection:
        connection.execute(f"UPDATE waiting SET {column} WHERE id IN (2, 3)")  # noqa: S608 - of this test's own making
    caplog.clear()
    found = [each.task_id for _, each in reopened(store)]
    assert found == ["t0", "t3"]
    assert [record.action for record in caplog.records] == ["store_unreadable"]
    text = f"2 rows in {store.path} are neither results nor events; they are not sent, and stay there"
    assert caplog.messages == [text]


def test_invalid_text_does_not_keep_other_messages_from_being_read(store):
    store.put(message("t1")).result()
    store.put(message("t2")).result()
    store.close()
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as connection:
        connection.execute("UPDATE waiting SET url = CAST(x'fffe' AS TEXT) WHERE id = 1")
    assert [each.task_id for _, each in reopened(store)] == ["t1", "t2"]


@pytest.mark.parametrize(("length", "aside"), [(5_000, 1), (20, 0)])
def test_an_invalid_log_is_set_aside_and_the_file_is_used(store, caplog, length, aside):
    store.put(message("t1")).result()
    store.close()
    Path(f"{store.path}-shm").write_bytes(os.urandom(32_768))
    Path(f"{store.path}-wal").write_bytes(b"no log" * (length // 6))
    for suffix in ("-shm", "-wal"):
        Path(f"{store.path}{suffix}").chmod(0o600)
    assert [each.task_id for _, each in reopened(store)] == ["t1"]
    assert [record.action for record in caplog.records] == ["store_corrupt"] * aside
    for line in caplog.messages:
        assert re.fullmatch(set_aside_line(store.path, "it is not an SQLite log", "-wal"), line)
    assert [len(list(store.path.parent.glob(f"*.corrupt-*{each}"))) for each in ("-wal", "-shm")] == [aside] * 2


def test_what_a_process_that_was_killed_left_in_its_log_alone_is_read(store, tmp_path, caplog):
    row = store.put(message("t1")).result()
    left = SqliteStore(shutil.copytree(store.path.parent, tmp_path / "left"), "w1")  # as a kill would leave them
    assert Path(f"{left.path}-wal").stat().st_size > 0
    assert left.open() == [(row, message("t1"))]
    left.close()
    assert caplog.records == []


def test_the_thread_that_writes_keeps_no_process_from_ending(store):
    assert {thread.daemon for thread in threading.enumerate() if thread.name == "store"} == {True}


# ---------------------------------------------------------------------------------------------- a disk that hangs


@contextlib.contextmanager
def hanging(store):
    """Hold up the thread that writes, as a disk that does not answer does."""
    answers = threading.Event()
    put = store.put(message("first"))
    put.add_done_callback(lambda _: answers.wait())
    store.forget(put.result())
    try:
        yield
    finally:
        answers.set()


def test_what_was_given_up_while_the_disk_hung_is_never_written(store):
    with hanging(store):
        given_up, waited_for = store.put(message("t1")), store.put(message("t2"))
        assert given_up.cancel()
    row = waited_for.result(WRITE_TIMEOUT)
    assert reopened(store) == [(row, message("t2"))]


def test_at_the_end_a_disk_that_hangs_is_waited_for_once(store):
    keeper = Store(store)
    with hanging(store):
        began = time.monotonic()
        assert keeper.keep_at_end([message(f"t{n}") for n in range(50)], began + 0.2) == [False] * 50
        assert time.monotonic() - began < WRITE_TIMEOUT
    assert keeper.keep_at_end([message("last")], time.monotonic() + WRITE_TIMEOUT) == [True]


def test_a_disk_that_hangs_at_the_end_is_not_waited_for_indefinitely(store, monkeypatch):
    monkeypatch.setattr("avtomatika_worker.delivery.sqlite_store.WRITE_TIMEOUT", 0.1)
    with hanging(store):
        store.close()
        assert "store" in {thread.name for thread in threading.enumerate()}


class Silent(Future):
    """What a disk owes that does not answer. ``waited_for``: the seconds that somebody was patient."""

    waited_for = None

    def result(self, timeout=None):
        self.waited_for = timeout
        raise TimeoutError


class SilentStore(SqliteStore):
    probed = Silent()

    def probe(self):
        return self.probed


def test_writes_that_a_hanging_disk_accepted_count_as_stored_and_are_not_waited_for_again(tmp_path):
    before = threading.active_count()
    store = SilentStore(tmp_path, "w1")
    store.open()
    with hanging(store):
        assert store.check() is True
        assert store.probed.waited_for == WRITE_TIMEOUT
        began = time.monotonic()
        store.close()
        assert time.monotonic() - began < WRITE_TIMEOUT
    until = time.monotonic() + 20
    while threading.active_count() > before:  # the disk answers: the file is released
        assert time.monotonic() < until
        time.sleep(0.01)
    assert reopened(SqliteStore(tmp_path, "w1")) == []


class Unforeseen(bytes):
    """Bytes that raise what no database does, when they are written."""

    def __conform__(self, _protocol):
        raise RuntimeError("unforeseen")


def test_an_unforeseen_error_fails_its_writes_and_the_store_goes_on(store, caplog):
    with pytest.raises(StoreError, match=f"^{re.escape(str(store.path))} cannot be written: unforeseen$"):
        store.put(message("t1", Unforeseen(b"body"))).result(WRITE_TIMEOUT)
    row = store.put(message("t2")).result(WRITE_TIMEOUT)
    assert store.check()
    assert reopened(store) == [(row, message("t2"))]
    assert [(each.levelname, each.action) for each in caplog.records] == [("CRITICAL", "store_fault")]
    assert caplog.messages == ["the store failed; this is a bug in the worker: RuntimeError('unforeseen')"]
    assert caplog.records[0].exc_info[0] is RuntimeError


class Wordless(bytes):
    """Bytes that raise an error without a text, when they are written."""

    def __conform__(self, _protocol):
        raise RuntimeError


def test_an_error_without_a_text_is_named_by_its_type(store):
    with pytest.raises(StoreError, match=f"^{re.escape(str(store.path))} cannot be written: RuntimeError$"):
        store.put(message("t1", Wordless(b"body"))).result(WRITE_TIMEOUT)


def test_a_check_that_meets_an_unforeseen_error_reports_nothing_as_stored(store):
    with hanging(store):
        put, probe = store.put(message("t1", Unforeseen(b"body"))), store.probe()
    assert probe.result(WRITE_TIMEOUT) is False
    assert isinstance(put.exception(), StoreError)


@pytest.mark.parametrize("when", ["before it is open", "after it is closed"])
def test_a_store_that_is_not_open_refuses_at_once(tmp_path, when):
    store = SqliteStore(tmp_path, "w1")
    if when == "after it is closed":
        store.open()
        store.close()
    with pytest.raises(StoreError, match=f"^{re.escape(str(store.path))} cannot be written: it is not open$"):
        store.put(message("t1")).result(0)
    assert store.check() is False
    store.forget(1)
    store.close()
