"""A skill that sets a umask which takes its user's own rights: what the worker makes afterwards stays usable."""

import os
import stat
import sys

import pytest

from avtomatika_worker.delivery.sqlite_store import Kind, Message, SqliteStore
from avtomatika_worker.files.workspaces import Workspaces

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no modes there")


@pytest.fixture(params=[0o777, 0o177, 0o022])
def umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.usefixtures("umask")
def test_directories_of_tasks_and_those_above_are_made_for_this_user_only(tmp_path):
    workspaces = Workspaces(tmp_path / "above" / "payloads")
    root = workspaces.make("t1")
    assert {mode(each) for each in (root, root.parent, tmp_path / "above" / "payloads", tmp_path / "above")} == {0o700}
    assert mode(root.parent.with_name(f"{root.parent.name}.lock")) == 0o600
    workspaces.remove(root)
    workspaces.close()
    assert not list((tmp_path / "above" / "payloads").iterdir())


@pytest.mark.usefixtures("umask")
def test_a_store_and_its_log_can_be_read_by_this_user(tmp_path):
    store = SqliteStore(tmp_path / "state", "w1")
    store.open()
    store.put(Message("http://o.test", Kind.RESULT, "t1", b"body", 0.0)).result()
    assert mode(tmp_path / "state") == 0o700
    assert {mode(each) for each in (tmp_path / "state").iterdir()} == {0o600}
    store.close()
