"""What happened in a run, with the time of each event, and what must be true of it."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Entry:
    time: float
    text: str

    def __str__(self):
        return f"{self.time:12.4f}  {self.text}"


@dataclass(eq=False)
class Run:
    """One run of a skill, in one life of the worker."""

    life: int
    orchestrator: str
    job_id: str
    task_id: str
    began: float
    ended: float | None = None
    how: str = ""


@dataclass
class History:
    """``clock`` gives the virtual time."""

    clock: object
    entries: list = field(default_factory=list)
    runs: list = field(default_factory=list)
    violations: list = field(default_factory=list)
    given_up: list = field(default_factory=list)
    lives: list = field(default_factory=list)
    adopted: dict = field(default_factory=dict)
    cancelled: dict = field(default_factory=dict)
    lingering: list = field(default_factory=list)
    twins: list = field(default_factory=list)
    closed: bool = False
    on_end: object = None

    def note(self, text):
        if not self.closed:
            self.entries.append(Entry(self.clock(), text))

    def violated(self, text):
        if not self.closed:
            self.note(f"VIOLATION: {text}")
            self.violations.append(text)

    def began(self, life, ctx):
        run = Run(life, ctx.params.get("at", ""), ctx.job_id, ctx.task_id, self.clock())
        twin = [each for each in self.runs if each.ended is None and each.life == life and each.job_id == run.job_id]
        if twin and not self.closed:
            self.twins.append((twin[0], run))
        self.runs.append(run)
        self.note(f"skill of {run.task_id} (job {run.job_id}) begins in life {life}")
        return run

    def ended(self, run, how):
        if self.closed:
            return
        run.ended, run.how = self.clock(), how
        if self.on_end is not None:
            then, self.on_end = self.on_end, None
            then()
        self.note(f"skill of {run.task_id} ends: {how}")

    def times(self, job_id):
        """How often a job was begun."""
        return sum(each.job_id == job_id for each in self.runs)
