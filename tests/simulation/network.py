"""A network in memory, between event loops of a `Schedule`. Bytes arrive late, in pieces, or never."""

import asyncio
import contextlib
import socket

FIRST_HOST = "127.0.0.11"


class Server:
    """What `asyncio.Server` is to aiohttp."""

    def __init__(self, network, loop, factory, sock):
        self._network = network
        self.loop = loop
        self.factory = factory
        self.sockets = [sock]

    def close(self):
        for sock in self.sockets:
            sock.close()
        self._network.servers.pop(self.loop.host, None)

    async def wait_closed(self):
        pass


class Network:
    """Knows who listens, what is connected, and what is wrong.

    ``cut`` are the hosts that no byte reaches: it waits, as TCP does, until they are there again. ``slow`` ones have
    their bytes come one after the other.
    """

    def __init__(self, schedule):
        self.schedule = schedule
        self.loops = []
        self.servers = {}
        self.links = []
        self.cut = set()
        self.slow = set()
        self.lose_replies = {}
        self._healed = []
        self._quiet, self._quiet_peer = socket.socketpair()

    def close(self):
        self._quiet.close()
        self._quiet_peer.close()

    @property
    def quiet_socket(self):
        """A socket that never has anything to read."""
        return self._quiet

    def latency(self):
        return 0.0002 + 0.004 * self.schedule.random.random() ** 3

    def listen(self, loop, factory, sock):
        server = self.servers[loop.host] = Server(self, loop, factory, sock)
        return server

    async def reach(self, loop, address):
        """Wait for the other side to take a connection. Raises ConnectionRefusedError."""
        host = address[0]
        await asyncio.sleep(self.latency())
        while host in self.cut:
            healed = loop.create_future()
            self._healed.append((loop, healed))
            await healed
        if host not in self.servers:
            raise ConnectionRefusedError(111, "Connection refused")

    def connect(self, loop, factory, address):
        server = self.servers.get(address[0])
        if server is None:
            raise ConnectionRefusedError(111, "Connection refused")
        ours, theirs = End(self, loop, address[0]), End(self, server.loop, address[0])
        ours.peer, theirs.peer = theirs, ours
        theirs.serves = True
        self.links.append(ours)
        self.links = [each for each in self.links if not (each.lost and each.peer.lost)]

        def accept():
            theirs.protocol = server.factory()
            theirs.protocol.connection_made(theirs)

        server.loop.call_soon(accept)
        ours.protocol = factory()
        ours.protocol.connection_made(ours)
        return ours, ours.protocol

    # ------------------------------------------------------------------------------------------- faults

    def partition(self, host):
        self.cut.add(host)

    def heal(self, host):
        self.cut.discard(host)
        waiting, self._healed = self._healed, []
        for loop, future in waiting:
            loop.call_soon(_settle, future)
        for link in self.links:
            if link.host == host:
                link.release()
                link.peer.release()

    def reset(self, host):
        for link in [each for each in self.links if each.host == host]:
            link.reset()

    def process_died(self, loop):
        """End what a killed process had open: the kernel says so to the other side."""
        for link in list(self.links):
            for end in (link, link.peer):
                if end.loop is loop and not end.lost:
                    end.lost = True
                    end.peer.arrive(end.peer.lose, ConnectionResetError(104, "Connection reset by peer"))


def _settle(future):
    if not future.done():
        future.set_result(None)


class End(asyncio.Transport):
    """One end of a connection, as a transport. ``host`` is the server's."""

    def __init__(self, network, loop, host):
        super().__init__()
        self.network = network
        self.loop = loop
        self.host = host
        self.peer = None
        self.protocol = None
        self.lost = False
        self.serves = False
        self._closing = False
        self._paused = False
        self._unread = []
        self._held = []
        self._arrives = 0.0

    # ------------------------------------------------------------------------------------------- the network's

    def arrive(self, act, *args):
        """Have something happen at this end once it has travelled here, after what came before."""
        if self.host in self.network.cut:
            self._held.append((act, args))
            return
        self._arrives = max(self._arrives, self.network.schedule.now + self.network.latency())
        self.loop.call_at(self._arrives, act, *args)

    def release(self):
        held, self._held = self._held, []
        for act, args in held:
            self.arrive(act, *args)

    def reset(self):
        for end in (self, self.peer):
            end._held.clear()
            end.loop.call_soon(end.lose, ConnectionResetError(104, "Connection reset by peer"))

    def lose(self, error):
        if not self.lost:
            self.lost = self._closing = True
            if self.protocol is not None:
                self.protocol.connection_lost(error)

    def take(self, data):
        if self.lost:
            return
        if self._paused or self._unread:
            self._unread.append(data)
        else:
            self.protocol.data_received(data)

    def end(self):
        """Hear that the other side sends no more."""
        if self.lost or self.protocol is None:
            return
        if self._paused or self._unread:
            self._unread.append(None)
        elif not self.protocol.eof_received():
            self.close()

    # ------------------------------------------------------------------------------------------- asyncio's

    def write(self, data):
        if self.lost or self._closing or not data:
            return
        data = bytes(data)
        network = self.network
        if self.serves and network.lose_replies.get(self.host):
            network.lose_replies[self.host] -= 1
            self.reset()
            return
        if self.host in network.slow:
            size = max(1, len(data) // (2 + int(network.schedule.random.random() * 6)))
            for number, start in enumerate(range(0, len(data), size)):
                piece = data[start : start + size]
                delay = 0.2 * network.schedule.random.random() * (number > 0)
                self.peer._arrives = max(self.peer._arrives, network.schedule.now) + delay
                self.peer.arrive(self.peer.take, piece)
            return
        self.peer.arrive(self.peer.take, data)

    def writelines(self, pieces):
        self.write(b"".join(pieces))

    def close(self):
        if self._closing:
            return
        self._closing = True
        self.peer.arrive(self.peer.end)
        self.loop.call_soon(self.lose, None)

    def abort(self):
        if self.lost:
            return
        self._closing = True
        self.peer.arrive(self.peer.lose, ConnectionResetError(104, "Connection reset by peer"))
        self.loop.call_soon(self.lose, None)

    def is_closing(self):
        return self._closing

    def can_write_eof(self):
        return False

    def get_write_buffer_size(self):
        return 0

    def set_write_buffer_limits(self, high=None, low=None):
        pass

    def pause_reading(self):
        self._paused = True

    def resume_reading(self):
        self._paused = False

        def read_on():
            unread, self._unread = self._unread, []
            for index, data in enumerate(unread):
                if self._paused:
                    self._unread = unread[index:] + self._unread
                    return
                if data is None:
                    self.end()
                else:
                    self.take(data)

        self.loop.call_soon(read_on)

    def is_reading(self):
        return not self._paused

    def set_protocol(self, protocol):
        self.protocol = protocol

    def get_protocol(self):
        return self.protocol

    def get_extra_info(self, name, default=None):
        if name == "socket":
            return self.network.quiet_socket
        if name in {"peername", "sockname"}:
            return (self.host, 80)
        return default


@contextlib.contextmanager
def a_network(schedule):
    network = Network(schedule)
    try:
        yield network
    finally:
        network.close()
