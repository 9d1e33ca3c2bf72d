"""What may go wrong in a run. Each fault has its time, and knows how to do its harm."""

from dataclasses import dataclass

from avtomatika_worker.devserver import Fault


@dataclass(frozen=True)
class AtOrchestrator:
    """A fault at one orchestrator, or on the way there."""

    at: float
    orchestrator: int

    def strike(self, world):
        self.strike_at(world.orchestrators[self.orchestrator], world)


@dataclass(frozen=True)
class Partition(AtOrchestrator):
    """No byte gets through for a while; then all do."""

    seconds: float

    def strike_at(self, orchestrator, world):
        world.network.partition(orchestrator.host)
        world.later(self.seconds, world.network.heal, orchestrator.host)


@dataclass(frozen=True)
class Reset(AtOrchestrator):
    """All connections break."""

    def strike_at(self, orchestrator, world):
        world.network.reset(orchestrator.host)


@dataclass(frozen=True)
class LostReplies(AtOrchestrator):
    """The next answers are lost on their way."""

    count: int

    def strike_at(self, orchestrator, world):
        host = orchestrator.host
        world.network.lose_replies[host] = world.network.lose_replies.get(host, 0) + self.count


@dataclass(frozen=True)
class SlowBytes(AtOrchestrator):
    """Messages come in pieces, with pauses."""

    seconds: float

    def strike_at(self, orchestrator, world):
        world.network.slow.add(orchestrator.host)
        world.later(self.seconds, world.network.slow.discard, orchestrator.host)


@dataclass(frozen=True)
class Restart(AtOrchestrator):
    """The orchestrator's process ends, and is back after a while; it may have lost its workers."""

    seconds: float
    forgets: bool

    def strike_at(self, orchestrator, world):
        orchestrator.crash()
        world.later(self.seconds, orchestrator.come_back, self.forgets)


@dataclass(frozen=True)
class Answers(AtOrchestrator):
    """The orchestrator, or a proxy before it, answers otherwise than it should."""

    call: str
    kind: str
    status: int
    times: int
    delay: float = 0.0

    def strike_at(self, orchestrator, _world):
        fault = Fault(self.call, self.kind, times=self.times, status=self.status, delay=self.delay)
        orchestrator.embedded.inject(fault)


@dataclass(frozen=True)
class ClockJump:
    """Somebody sets the worker's clock, or, with a number, that of an orchestrator."""

    at: float
    seconds: float
    orchestrator: int | None = None

    def strike(self, world):
        if self.orchestrator is None:
            world.machine.wall_ahead += self.seconds
        else:
            orchestrator = world.orchestrators[self.orchestrator]
            offset = orchestrator.embedded.clock_offset + self.seconds
            orchestrator.loop.call_soon(setattr, orchestrator.embedded, "clock_offset", offset)


@dataclass(frozen=True)
class DiskFails:
    """The worker's disk is ``full``, or ``hangs``."""

    at: float
    seconds: float
    how: str

    def strike(self, world):
        setattr(world.machine.disk, self.how, True)
        world.later(self.seconds, setattr, world.machine.disk, self.how, False)


@dataclass(frozen=True)
class Crash:
    """The worker is killed, so many steps of its main loop after a time, and started again."""

    at: float
    steps: int
    seconds: float

    def strike(self, world):
        self.strike_later(world)()

    def strike_later(self, world):
        """Return what strikes."""
        return lambda: self._strike(world)

    def _strike(self, world):
        machine = world.machine
        if machine.ended:
            return

        def kill():
            machine.kill()
            world.later(self.seconds, world.start_again)

        machine.main.count_down(self.steps, kill)


@dataclass(frozen=True)
class CrashAfterASkill:
    """The worker is killed so many steps after a skill has ended: its result is on its way."""

    at: float
    steps: int
    seconds: float

    def strike(self, world):
        world.history.on_end = Crash(self.at, self.steps, self.seconds).strike_later(world)


@dataclass(frozen=True)
class Blocked:
    """A skill blocks the main loop."""

    at: float
    seconds: float

    def strike(self, world):
        if not world.machine.ended:
            world.machine.main.pause(self.seconds, world.loop)


@dataclass(frozen=True)
class Redeployed:
    """The worker is asked to stop, perhaps impatiently, and started again when it has.

    ``trouble`` is what happens to its last heartbeats.
    """

    at: float
    impatient: float | None
    trouble: str | None = None

    def strike(self, world):
        machine, life = world.machine, world.machine.life
        if self.trouble is not None:
            for each in world.orchestrators:
                each.embedded.inject(Fault("heartbeat", self.trouble, times=2))
        if machine.ended:
            return
        machine.request_shutdown()
        if self.impatient is not None:
            world.later(self.impatient, lambda: machine.life == life and machine.request_shutdown())
        world.start_when_ended()


def draw(random, count, orchestrators, span):
    """Return ``count`` faults, at any time of ``span``."""
    return tuple(_one(random, orchestrators, span) for _ in range(count))


def more(random, orchestrators, span):
    """Return what the others hardly ever are: heartbeats that are answered by a proxy's page."""
    if random.random() > 0.15:
        return ()
    at, which = round(random.uniform(0.0, span), 3), random.randrange(orchestrators)
    return (Answers(at, which, "heartbeat", "html", 200, random.randint(1, 3)),)


STATUSES = [500, 502, 503, 503, 429, 429, 401, 404]


def _one(random, orchestrators, span):
    at, which = round(random.uniform(0.0, span), 3), random.randrange(orchestrators)
    seconds = round(random.choice([0.5, 3.0, 20.0, 80.0]) * random.uniform(0.5, 1.5), 3)
    calls = ["poll", "result", "result", "heartbeat", "event", "register", "any"]
    kinds = [
        "drop_before",
        "drop_after",
        "status",
        "status",
        "status",
        "status",
        "garbage",
        "truncate",
        "html",
        "reset",
        "answer_late",
    ]

    def answers():
        call, kind, status = random.choice(calls), random.choice(kinds), random.choice(STATUSES)
        return Answers(at, which, call, kind, status, random.randint(1, 4), round(random.uniform(0.1, 10.0), 3))

    return random.choice(
        [
            lambda: Partition(at, which, seconds),
            lambda: Reset(at, which),
            lambda: LostReplies(at, which, random.randint(1, 5)),
            lambda: SlowBytes(at, which, seconds),
            lambda: Restart(at, which, seconds / 2, random.random() < 0.6),
            answers,
            answers,
            answers,
            lambda: ClockJump(at, random.choice([-7200.0, -90.0, -30.0, 30.0, 90.0, 7200.0])),
            lambda: ClockJump(at, random.choice([-20.0, -5.0, 5.0, 20.0]), which),
            lambda: DiskFails(at, seconds, "full"),
            lambda: DiskFails(at, seconds, "hangs"),
            lambda: CrashAfterASkill(at, random.randint(1, 60), seconds / 4),
            lambda: CrashAfterASkill(at, random.randint(1, 60), seconds / 4),
            lambda: Crash(at, random.randint(1, 300), seconds / 4),
            lambda: Blocked(at, seconds / 2),
            lambda: Redeployed(at, random.choice([None, 0.1, 1.0]), random.choice([None, "drop_after", "status"])),
        ]
    )()
