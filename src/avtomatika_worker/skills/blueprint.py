"""The decorator that makes skills, and blueprints: skills in a separate module, included in a worker later."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, TypeVar, overload

from avtomatika_worker.skills.batch import Batch
from avtomatika_worker.skills.binding import local_names
from avtomatika_worker.skills.model import ModelDefinition
from avtomatika_worker.skills.model_options import options_of
from avtomatika_worker.skills.resource import ResourceDefinition
from avtomatika_worker.skills.run_options import CANCEL_GRACE
from avtomatika_worker.skills.skill import SkillDefinition, define

F = TypeVar("F", bound=Callable[..., Any])
Executor = Literal["thread", "process"]
OnStale = Literal["stop", "finish"]


class SkillDecorator(ABC):
    """The decorators ``skill``, ``resource`` and ``model``, shared by `Worker` and `SkillBlueprint`."""

    @abstractmethod
    def add_skill(self, definition: SkillDefinition) -> None:
        """Add a skill."""

    @abstractmethod
    def add_resource(self, definition: ResourceDefinition) -> None:
        """Add a resource."""

    @abstractmethod
    def add_model(self, definition: ModelDefinition) -> None:
        """Add a loader of models."""

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
        worker's process before the worker registers, and once in each skill process (``executor="process"``)
        that need it; if no skill needs it, it is made only in the worker's process. Plain functions run in a thread.
        Resources are closed in reverse order. The function itself is returned.

        Raises `ResourceError`. A resource that cannot be made stops the start with exit code 2.
        """
        if func is None:
            return self.resource  # pyright: ignore[reportUnknownVariableType,reportUnknownMemberType] - it calls itself
        self.add_resource(ResourceDefinition(func, local_names(func)))
        return func

    @overload
    def model(self, func: F, /) -> F: ...

    @overload
    def model(
        self,
        func: None = None,
        /,
        *,
        max_loaded: int | None = 1,
        memory: str | int | None = None,
        keep_alive: str | float | None = None,
        unload: Callable[[Any], object] | None = None,
        warm_up: Iterable[str] = (),
        names: Iterable[str] | None = None,
        announce: Literal["per_model"] | None = None,
    ) -> Callable[[F], F]: ...

    def model(self, func: Any = None, /, **options: Any) -> Any:
        """Register a function that loads a model by its name, for skills that say which one by a param.

            @worker.model(max_loaded=2, keep_alive="10m")
            def load(name: str) -> Model:
                return Model.from_file(f"{name}.pt")

            @worker.skill(model_from="checkpoint")
            def caption(url: str, checkpoint: str, model: Model) -> str: ...

        A model is loaded when the first task asks for it, and shared by those that follow. ``max_loaded`` is how many
        may be loaded at the same time (None: any number), ``memory`` how many bytes they may take up together, measured
        (an integer, or a text such as "8GiB"); ``keep_alive`` is how long one stays that no task uses (seconds, or a
        text such as "10m"). Those least recently used make room for others; none is unloaded while a task uses it. A
        generator yields the model, and is resumed to unload it; otherwise ``unload`` is called with it, if given.

        ``warm_up`` names models that are loaded before the worker registers. ``names`` are all that there are: tasks
        that name another fail. With ``announce="per_model"``, a skill of its own is announced for each of them, such as
        ``caption--vit-large``. Plain functions run in a thread; each skill process (``executor="process"``) has
        models of its own. The function itself is returned. Raises `ResourceError`.
        """
        if func is None:
            return partial(self._model, options)
        return self._model(options, func)

    def _model(self, options: dict[str, Any], func: F) -> F:
        made = ResourceDefinition(func, local_names(func))
        self.add_model(ModelDefinition(made, options_of(made.name, options)))
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
        model_from: str | None = None,
        batch: Batch | None = None,
        gpus: float | None = None,
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
        another worker. ``model_from`` is the param that names the model which the skill takes (see `model`).

        A plain ``def`` runs in a thread (``executor="thread"``), an ``async def`` on the worker's event loop.
        ``executor="process"`` runs either kind in a separate process: for code that computes, holds the GIL or may
        crash. There, a skill that outlives its ``cancel_grace`` is killed. The function must be importable by name; its
        process is replaced after ``max_tasks_per_child`` tasks of the skill. With ``gpus`` such a process sees only the
        devices that it was given: 1, 2 or more whole ones, or with 0.5 one that it shares with another. No more tasks
        of the skill run than devices have room for.

        With ``batch=Batch(…)`` the function is called for several tasks at once: it gets lists, one item a task, or a
        model whose fields are all lists, or NumPy arrays whose first axis is the batch, and returns a list or an array.

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
        self._models: list[ModelDefinition] = []

    def add_skill(self, definition: SkillDefinition) -> None:
        """Add a skill."""
        self._definitions.append(definition)

    def add_resource(self, definition: ResourceDefinition) -> None:
        """Add a resource."""
        self._resources.append(definition)

    def add_model(self, definition: ModelDefinition) -> None:
        """Add a loader of models."""
        self._models.append(definition)

    @property
    def definitions(self) -> tuple[SkillDefinition, ...]:
        """The skills collected so far."""
        return tuple(self._definitions)

    @property
    def resources(self) -> tuple[ResourceDefinition, ...]:
        """The resources collected so far."""
        return tuple(self._resources)

    @property
    def models(self) -> tuple[ModelDefinition, ...]:
        """The loaders of models collected so far."""
        return tuple(self._models)

    def __repr__(self) -> str:
        return f"SkillBlueprint({self.name!r}, skills={[d.name for d in self._definitions]})"
