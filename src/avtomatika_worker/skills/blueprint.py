"""The decorator that makes skills, and blueprints: skills in a module of their own, taken by a worker later."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, overload

from avtomatika_worker.skills.skill import CANCEL_GRACE, SkillDefinition, define

F = TypeVar("F", bound=Callable[..., Any])


class SkillDecorator(ABC):
    """What `Worker` and `SkillBlueprint` share: the ``skill`` decorator."""

    @abstractmethod
    def add_skill(self, definition: SkillDefinition) -> None:
        """Take a skill."""

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
        executor: str | None = None,
        cancel_grace: float = CANCEL_GRACE,
        **properties: Any,
    ) -> Callable[[F], F]: ...

    def skill(self, name: Any = None, /, **told: Any) -> Any:
        """Make a function a skill: ``@worker.skill``, ``@worker.skill()`` or ``@worker.skill("name", …)``.

        Left out, the name is the function's, the description its docstring's first paragraph, the version its module's
        ``__version__``, and the schemas are inferred from its type hints. Schemas may be JSON Schemas or types;
        ``events`` (or ``events_schema``) maps event names to theirs. ``output_statuses`` are statuses besides
        "success" that results may have. Any other keyword is marketplace metadata; ``price`` also fills the skill's
        cost. The function itself is returned as it was.

        ``timeout`` (seconds) stops a task that runs longer; ``max_concurrent`` is how many tasks of the skill may run
        at the same time. A cancelled skill gets ``cancel_grace`` seconds (5) to end; then the task is reported without
        it, and its slot is free when it truly ends.

        Raises `SkillDefinitionError`.
        """
        if callable(name):
            self.add_skill(define(name, None))
            return name
        if "name" in told and name is None:
            name = told.pop("name")

        def decorate(func: F) -> F:
            self.add_skill(define(func, name, **told))
            return func

        return decorate


class SkillBlueprint(SkillDecorator):
    """Skills without a worker: put them in a module, and let a worker take them with ``include_blueprint``."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._definitions: list[SkillDefinition] = []

    def add_skill(self, definition: SkillDefinition) -> None:
        """Take a skill."""
        self._definitions.append(definition)

    @property
    def definitions(self) -> tuple[SkillDefinition, ...]:
        """The skills collected so far."""
        return tuple(self._definitions)

    def __repr__(self) -> str:
        return f"SkillBlueprint({self.name!r}, skills={[d.name for d in self._definitions]})"
