"""What each cloud's metadata service says becomes a notice with the time that is left; all else does not."""

import asyncio

import pytest

from avtomatika_worker.monitoring.clouds import AwsNotices, AzureNotices, GcpNotices
from avtomatika_worker.monitoring.notices import FileNotices, Notices, NoticeUnavailableError
from preemption.metadata import Aws, Azure, Gcp, serving


async def heard(source, announce, *, no_sooner=lambda: True):
    """Return the notice of a source, for which ``announce`` is called once it waits."""
    waiting = asyncio.create_task(source.wait())
    async with asyncio.timeout(10):
        while True:
            await asyncio.sleep(0.01)
            if no_sooner():
                break
        assert not waiting.done()
        began = asyncio.get_running_loop().time()
        announce()
        notice = await waiting
    assert asyncio.get_running_loop().time() - began < 5.0
    return notice


async def test_aws_says_when_the_instance_is_taken():
    aws = Aws()
    async with serving(aws) as base:
        notice = await heard(AwsNotices(base=base), lambda: aws.announce(100), no_sooner=lambda: aws.given)
    assert notice.seconds == pytest.approx(100, abs=5)
    assert "terminate" in notice.what


async def test_aws_tokens_are_renewed():
    aws = Aws()
    async with serving(aws) as base:

        def end_tokens_and_announce():
            aws.tokens.clear()
            aws.announce(100, "stop")

        notice = await heard(AwsNotices(base=base), end_tokens_and_announce, no_sooner=lambda: aws.given)
    assert "stop" in notice.what
    assert (aws.given, aws.refused) == (2, 1)


async def test_a_notice_of_aws_without_a_readable_time_leaves_the_two_minutes_that_it_promises():
    aws = Aws()
    aws.notice = {"action": "hibernate", "time": "soon"}
    async with serving(aws) as base:
        assert (await AwsNotices(base=base).wait()).seconds == 120


async def test_google_holds_the_request_until_the_machine_is_preempted():
    gcp = Gcp()
    async with serving(gcp) as base:
        notice = await heard(GcpNotices(base=base), gcp.announce, no_sooner=lambda: gcp.held)
    assert notice.seconds == 30
    assert gcp.calls == 2


async def test_a_request_that_google_has_held_for_long_enough_is_made_again():
    gcp = Gcp()
    async with serving(gcp) as base:
        await heard(GcpNotices(base=base, held=0), gcp.announce, no_sooner=lambda: gcp.held > 3)


async def test_azure_lists_events_of_other_machines_and_harmless_ones_too():
    azure = Azure()
    azure.announce(20, "Freeze")
    azure.announce(20, "Preempt", "machine-2")
    async with serving(azure) as base:

        def announce():
            azure.announce(900, "Reboot")
            azure.announce(30, "Preempt")

        notice = await heard(AzureNotices(base=base), announce, no_sooner=lambda: azure.calls)
    assert notice.seconds == pytest.approx(30, abs=5)
    assert "Preempt" in notice.what


@pytest.mark.parametrize(
    ("source", "cloud"), [(AwsNotices, Gcp), (GcpNotices, Azure), (AzureNotices, Aws)], ids=["aws", "gcp", "azure"]
)
async def test_an_answer_from_anything_but_the_metadata_service_is_not_a_notice(source, cloud):
    async with serving(cloud()) as base:
        with pytest.raises(NoticeUnavailableError):
            await source(base=base).wait()


async def test_a_service_that_cannot_be_reached_is_asked_again_and_logged_once(caplog):
    aws, heard_one = Aws(), asyncio.Event()
    async with serving(aws) as base:
        pass  # now nobody listens there
    notices = Notices([AwsNotices(base=base)])
    notices.on_notice = lambda _: heard_one.set()
    waiting = asyncio.create_task(notices.run())
    async with asyncio.timeout(10):
        while True:
            await asyncio.sleep(0.01)
            if "does not answer" in caplog.text:
                break
    assert not heard_one.is_set()
    waiting.cancel()
    assert caplog.text.count("no notice could be heard") == 1


@pytest.mark.parametrize(("content", "seconds"), [("25.5", 25.5), ("", None), ("soon", None), ("-1", None)])
async def test_a_file_that_appears_is_a_notice_and_may_say_how_much_time_is_left(tmp_path, caplog, content, seconds):
    path = tmp_path / "drain"

    def announce():
        (tmp_path / "new").write_text(content)
        (tmp_path / "new").replace(path)

    assert (await heard(FileNotices(path), announce)).seconds == seconds
    assert ("no number of seconds" in caplog.text) is (content in {"soon", "-1"})
