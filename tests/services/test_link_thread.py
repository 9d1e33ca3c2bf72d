"""Calls to a link thread that ends by itself at any moment."""

import asyncio
import gc

from avtomatika_worker.link_thread import LinkThread


async def five():
    await asyncio.sleep(0)
    return 5


async def test_a_call_returns_or_raises_whenever_the_thread_ends():
    outcomes = set()
    for number in range(300):

        async def crash(number=number):
            await asyncio.sleep(0.0002 * (number % 5))
            raise ValueError("crashed")

        thread = LinkThread([crash], asyncio.new_event_loop)
        thread.start()
        await asyncio.sleep(0.0001 * (number % 7))
        for _ in range(3):
            try:
                async with asyncio.timeout(5):
                    outcomes.add(await thread.call(five))
            except (RuntimeError, asyncio.CancelledError):
                outcomes.add(None)
        await thread.stop()
        assert thread.ended.done()
        thread.ended.exception()  # read, so that nobody complains
    gc.collect()  # a coroutine that nobody awaited is a warning, and warnings are errors
    assert None in outcomes
