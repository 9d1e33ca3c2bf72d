"""The decorator that makes skills, and blueprints: skills in a separate module, included in a worker later."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar, overload

from avtomatika_worker.skills.batch import Batch
from avtomatika_worker.skills.binding import local_names
from avtomatika_worker.skills.resource import ResourceDefinition
from avtomatika_worker.skills.run_options import CANCEL_GRACE
from avtomatika_worker.skills.skill import SkillDefinition, define

F = TypeVar("F", bound=Callable[..., Any])
Executor = Literal["thread", "process"]
OnStale = Literal["stop", "finish"]


class SkillDecorator(ABC):
    """The decorators ``skill`` and ``resource``, shared by `Worker` and `SkillBlueprint`."""

    @abstractmethod
    def add_skill(self, definition: SkillDefinition) -> None:
        """Add a skill."""

    @abstractmethod
    def add_resource(self, definition: ResourceDefinition) -> None:
        """Add a resource."""

    @overload
    def resource(self, func: F, /) -> F: ...

    @overload
    def resource(self, func: None = None, /) -> Callable[[F], F]: ...

    def resource(self, func: Any = None, /) -> Any:
        """Register a function that makes a resource that skills request by type: a loaded model, a connection pool.

            @worker.resource
            async def database() -> AsyncIterator[Database]:
                async with connect() as database:
                    yield database

        A plain or ``async def`` function returns the resource; a generator yields it and is resumed when the worker
        shuts down. Skills and other resources request it by the type in its return annotation. It is called once in the
        worker's process before the worker registers, and once in each process for skills with ``executor="process"``
        that need it; if no skill needs it, it is made only in the worker's process. Plain functions run in a thread.
        Resources are closed in reverse order. The function itself is returned.

        Raises `ResourceError`. A resource that cannot be made stops the start with exit code 2.
        """
        if func is None:
            return self.resource  # pyright: ignore[reportUnknownVariableType,reportUnknownMemberType] - it calls itself
        self.add_resource(ResourceDefinition(func, local_names(func)))
        return func

    @overload
    def skill(self, name: F, /) -> F: ...

    @overload
    def skill(
        self,
        name: str | None = None,
        /,
        *,
        type: str | None = None,
        description: str | None = None,
        version: str | None = None,
        input_schema: Any = None,
        output_schema: Any = None,
        events: Mapping[str, Any] | None = None,
        events_schema: Mapping[str, Any] | None = None,
        output_statuses: Iterable[str] | None = None,
        timeout: float | None = None,
        max_concurrent: int | None = None,
        prefetch: int = 0,
        executor: Executor | None = None,
        max_tasks_per_child: int | None = None,
        cancel_grace: float = CANCEL_GRACE,
        expected_seconds: float | None = None,
        on_stale: OnStale = "stop",
        batch: Batch | None = None,
        metadata: Mapping[str, Any] | None = None,
        properties: Mapping[str, Any] | None = None,
        **marketplace: Any,
    ) -> Callable[[F], F]: ...

    def skill(self, name: Any = None, /, **declarations: Any) -> Any:
        """Turn a function into a skill: ``@worker.skill``, ``@worker.skill()`` or ``@worker.skill("name", …)``.

        By default, the name is the function's, the description its docstring's first paragraph, the version its
        module's ``__version__``, and the schemas are inferred from its type hints. Schemas may be JSON Schemas or
        types; ``events`` (or ``events_schema``) maps event names to theirs. ``output_statuses`` are statuses besides
        "success" that results may have. Any other keyword is marketplace metadata, as is the content of ``metadata``
        (or ``properties``); ``price`` also sets the skill's cost. A keyword that is almost an option's name is an
        error. The function itself is returned unchanged.

        ``timeout`` (seconds) stops a task that runs longer; ``max_concurrent`` is how many tasks of the skill may run
        at the same time. With ``prefetch``, that many more may be here, and ``max_concurrent`` is 1 by default: their
        files are fetched, and those of results stored, while others run. A cancelled skill gets ``cancel_grace``
        seconds (5) to end; after that the task is reported without it, and its slot is freed once it really ends. A
        skill whose tasks take long says so with ``expected_seconds``: the worker warns where a time limit is shorter.
        ``on_stale="finish"`` lets a task go on although the orchestrator waits for another attempt at the same work, on
        another worker.

        A plain ``def`` runs in a thread (``executor="thread"``), an ``async def`` on the worker's event loop.
        ``executor="process"`` runs either kind in a separate process: for code that computes, holds the GIL or may
        crash. There, a skill that outlives its ``cancel_grace`` is killed. The function must be importable by name; its
        process is replaced after ``max_tasks_per_child`` tasks of the skill.

        With ``batch=Batch(…)`` the function is called for several tasks at once: it gets lists, one item a task, and
        returns a list.

        Raises `SkillDefinitionError`.
        """
        if callable(name):
            self.add_skill(define(name, declarations.pop("name", None), **declarations))
            return name
        if "name" in declarations and name is None:
            name = declarations.pop("name")

        def decorate(func: F) -> F:
            self.add_skill(define(func, name, **declarations))
            return func

        return decorate


class SkillBlueprint(SkillDecorator):
    """Skills without a worker: put them in a module, and add them to a worker with ``include_blueprint``."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._definitions: list[SkillDefinition] = []
        self._resources: list[ResourceDefinition] = []

    def add_skill(self, definition: SkillDefinition) -> None:
        """Add a skill."""
        self._definitions.append(definition)

    def add_resource(self, definition: ResourceDefinition) -> None:
        """Add a resource."""
        self._resources.append(definition)

    @property
    def definitions(self) -> tuple[SkillDefinition, ...]:
        """The skills collected so far."""
        return tuple(self._definitions)

    @property
    def resources(self) -> tuple[ResourceDefinition, ...]:
        """The resources collected so far."""
        return tuple(self._resources)

    def __repr__(self) -> str:
        return f"SkillBlueprint({self.name!r}, skills={[d.name for d in self._definitions]})"
