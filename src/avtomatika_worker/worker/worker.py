"""`Worker`: the one object that users create. Creating it has no side effects; `Worker.main` starts everything."""

from __future__ import annotations

import inspect
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NoReturn

from avtomatika_worker._init import leave_first_process
from avtomatika_worker.config import Settings, SkillsOnError, load_settings
from avtomatika_worker.config.resumption import SIGTERM
from avtomatika_worker.errors import ConfigError, SkillLoadError, WorkerError
from avtomatika_worker.execution.injection import injectables
from avtomatika_worker.execution.middleware import Middleware
from avtomatika_worker.execution.processes.imports import in_skill_process
from avtomatika_worker.monitoring.usage import UsageChecker
from avtomatika_worker.narrowing import as_any
from avtomatika_worker.observability.log_context import log_context
from avtomatika_worker.observability.logging import configure_logging, restore_logging
from avtomatika_worker.policy.model_pool import Phase
from avtomatika_worker.skills.blueprint import SkillBlueprint, SkillDecorator
from avtomatika_worker.skills.loading import load_directory
from avtomatika_worker.skills.model import ModelDefinition, ModelRegistry
from avtomatika_worker.skills.registry import SkillRegistry
from avtomatika_worker.skills.resource import ResourceDefinition, ResourceRegistry
from avtomatika_worker.skills.skill import SkillDefinition
from avtomatika_worker.skills.time_limits import too_short
from avtomatika_worker.supervisor import Ending, Supervisor
from avtomatika_worker.tasks.limits import CapacityChecker
from avtomatika_worker.worker.arguments import (
    checked_capacity_checker,
    checked_dependencies,
    checked_function,
    checked_limits,
    checked_middleware,
)
from avtomatika_worker.worker.assembly import assemble
from avtomatika_worker.worker.make_tasks import Policies
from avtomatika_worker.worker.program import EXIT_USAGE, USAGE_ERRORS, explain, longest_shutdown, run_process
from avtomatika_worker.worker.resource_plan import ResourcePlan, plan_resources
from avtomatika_worker.worker.twice import find_twin
from avtomatika_worker.world import REAL, World

_log: Final = logging.getLogger("avtomatika_worker")

_RUN_AGAIN: Final = (
    "skill processes import the program, and must not run its worker: "
    'put calls such as worker.run() under: if __name__ == "__main__"'
)

_NOT_REAPED: Final = (
    "this program is process 1 and has threads already, so nothing reaps processes that lose their parent: "
    "give the container an init (docker run --init, or tini in the image)"
)


class Worker(SkillDecorator):
    """A worker: a set of skills, and the services that bring them tasks.

    Every argument is optional; it defaults to its environment variable (``worker_type`` from ``WORKER_TYPE``,
    ``worker_id`` from ``WORKER_ID``, ``max_concurrent_tasks`` from ``MAX_CONCURRENT_TASKS``, ``skills_dir`` from
    ``WORKER_SKILLS_DIR``). ``settings`` overrides any other setting by its field's name, as in
    ``Worker(settings={"heartbeat_interval": 5})``.

    ``skill_dependencies`` maps a skill to what must be in the hot cache for it to be hot. ``skill_type_limits`` maps a
    type of skills to the number of its tasks that may run at the same time. ``capacity_checker`` is asked, with a
    skill's name or without an argument, whether another task could start now; it is called on the main loop, often, so
    it must be quick. Raises `ConfigError` for a limit that is none.
    """

    def __init__(
        self,
        *,
        worker_type: str | None = None,
        worker_id: str | None = None,
        max_concurrent_tasks: int | None = None,
        skills_dir: str | os.PathLike[str] | None = None,
        skill_dependencies: Mapping[str, Sequence[str]] | None = None,
        skill_type_limits: Mapping[str, int] | None = None,
        capacity_checker: CapacityChecker | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._overrides: dict[str, Any] = {
            **(settings or {}),
            "worker_type": worker_type,
            "worker_id": worker_id,
            "max_concurrent_tasks": max_concurrent_tasks,
            "skills_dir": os.fspath(skills_dir) if skills_dir is not None else None,
        }
        self._policies = Policies(
            skill_dependencies=checked_dependencies(skill_dependencies or {}),
            skill_type_limits=checked_limits(skill_type_limits or {}),
            capacity_checker=checked_capacity_checker(capacity_checker),
        )
        self._injectables = injectables()
        self._registry = SkillRegistry(self._injectables)
        self._resources = ResourceRegistry(self._injectables)
        self._models = ModelRegistry(self._injectables)
        self._packages: dict[str, Path] = {}
        self._middlewares: list[Middleware] = []
        self._supervisor: Supervisor | None = None
        self._skills_loaded = False
        self._ending = Ending()
        self._shutdown_limit = 0.0
        self._shutdown_preempts = False

    # ------------------------------------------------------------------------------------------ skills

    @property
    def skills(self) -> SkillRegistry:
        """The skills registered so far."""
        return self._registry

    def add_skill(self, definition: SkillDefinition) -> None:
        """Register a skill. Raises `SkillDefinitionError` if it is invalid or its name is taken."""
        self._registry.add(definition)

    def add_resource(self, definition: ResourceDefinition) -> None:
        """Register a resource. Raises `ResourceError` if it is invalid or its type is taken."""
        self._resources.add(definition)

    def add_model(self, definition: ModelDefinition) -> None:
        """Register a loader of models. Raises `ResourceError` if it is invalid or its type is taken."""
        self._models.add(definition)

    def include_blueprint(self, blueprint: SkillBlueprint) -> None:
        """Register all that is in a blueprint. Raises `ResourceError` and `SkillDefinitionError`."""
        if not isinstance(as_any(blueprint), SkillBlueprint):
            raise TypeError(f"include_blueprint takes a SkillBlueprint, not {type(blueprint).__name__}")
        self._add_needs(blueprint)
        for definition in blueprint.definitions:
            self._registry.add(definition)

    def _add_needs(self, blueprint: SkillBlueprint) -> None:
        """Register what a blueprint's skills ask for by annotation."""
        for resource in blueprint.resources:
            self._resources.add(resource)
        for model in blueprint.models:
            self._models.add(model)

    def add_middleware(self, middleware: Middleware) -> None:
        """Wrap every task in a middleware, ``async (ctx, call_next) -> outcome``; the first one added is outermost."""
        self._middlewares.append(checked_middleware(middleware))

    def set_usage_checker(self, checker: UsageChecker) -> None:
        """Take the machine's load from ``checker()`` instead of measuring it.

        It returns a dict of ``cpu_load_percent``, ``ram_used_gb`` (GiB) and, if there are any, ``devices_usage``: a
        list of ``unit_id``, ``load_percent`` and ``metrics``. It is called every few seconds in its own thread.
        While it raises or returns anything else, which is logged, no load is reported. Takes effect on the next start.
        """
        self._policies = replace(self._policies, usage_checker=checked_function("the usage checker", checker))

    def load_skills(self, source: Settings) -> Awaitable[None] | None:
        """Load the skills directory of the settings once, and check every skill.

        Raises `SkillLoadError` for a module that cannot be imported (unless ``WORKER_SKILLS_ON_ERROR=skip``),
        `SkillDefinitionError`, `ResourceError`, and `ConfigError` when the directory was named and does not exist.
        """
        if not self._skills_loaded:
            self._load_directory(source)
            self._skills_loaded = True
        self._registry.freeze()
        self._provide("", {})  # finds what no process could import, or nobody could make
        return None

    # ------------------------------------------------------------------------------------------ running

    def load_settings(self, environ: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> Settings:
        """Return the settings from ``environ`` and this worker's arguments.

        ``overrides`` are named like the fields of the settings and win over both; None takes an argument back.
        Raises `ConfigError`.
        """
        return load_settings(environ, **{**self._overrides, **(overrides or {})})

    def run(self) -> NoReturn:
        """Run until SIGINT or SIGTERM, then exit the process. Meant for ``python my_worker.py``.

        Sets up logging for the process. Exit codes: 0 after an orderly shutdown, 1 if a part of the worker crashed,
        2 for a wrong configuration or skill, 3 if a second signal cut the shutdown short, 4 if results were lost
        because they could neither be delivered nor stored.
        """
        try:
            settings = self.load_settings(os.environ)
        except ConfigError as error:
            explain(error)
            sys.exit(EXIT_USAGE)
        if settings.processes != 1:
            print("worker: WORKER_PROCESSES is for `worker run`; this program runs one process", file=sys.stderr)
        self.run_with(settings)

    def run_with(self, settings: Settings, *, health_check: bool = True) -> NoReturn:
        """Run as `run` does, with the given settings."""
        if in_skill_process():  # before `run_process` makes it an exit code
            raise RuntimeError(_RUN_AGAIN)
        reaped = leave_first_process()
        configure_logging(
            settings.log_format.value, settings.log_level.value, worker_id=settings.worker_id, background=True
        )
        if not reaped:
            _log.warning(_NOT_REAPED, extra={"action": "first_process"})
        try:
            self.load_skills(settings)
        except USAGE_ERRORS as error:
            explain(error)
            sys.exit(EXIT_USAGE)
        run_process(self, lambda: self.main(settings, health_check=health_check))

    async def main(
        self,
        settings: Settings | None = None,
        *,
        health_check: bool = True,
        resources: Mapping[Any, object] | None = None,
        prestart: bool = True,
    ) -> None:
        """Run until `shutdown`, or until cancelled: both let running tasks finish first.

        ``settings`` default to the environment's; ``resources`` are values in place of those that would be made, by
        type. Without ``prestart`` the first skill process is started by the first task that needs one, or by
        `prestart`. Raises `ConfigError`, `SkillDefinitionError`, `SkillLoadError`, `ResourceError` or
        `ProcessStartError` before the worker registers; later only what is a bug of the worker itself.
        """
        if self._supervisor is not None:
            raise RuntimeError("this worker runs already: await worker.shutdown() first, or make another Worker")
        if in_skill_process():
            raise RuntimeError(_RUN_AGAIN)
        settings = settings or self.load_settings(os.environ)
        self.load_skills(settings)
        restore_logging()
        self._check_twin()
        with log_context(worker_id=settings.worker_id), self._running(settings):
            resource_plan = self._provide(settings.worker_id, resources or {})
            self._shutdown_limit = longest_shutdown(self._registry, settings)
            self._shutdown_preempts = SIGTERM in settings.preemption
            self._supervisor = assemble(
                settings,
                self._registry,
                self._middlewares,
                self._policies,
                resource_plan,
                health_check=health_check,
                prestart=prestart,
            )
            if not len(self._registry):
                _log.warning("this worker has no skills: it will get no tasks", extra={"action": "no_skills"})
            for text in too_short(self._registry, settings.orchestrator_task_limit):
                _log.warning("%s", text, extra={"action": "time_limit_too_short"})
            try:
                await self._supervisor.run()
            finally:
                self._ending = self._supervisor.ending
                self._supervisor = None

    async def shutdown(self) -> None:
        """Shut down gracefully, and wait for it. Does nothing if the worker is not running."""
        if self._supervisor is not None:
            self._supervisor.shutdown()
            await self._supervisor.stopped()

    @property
    def loaded_models(self) -> tuple[str, ...]:
        """The names of the models that are loaded in this process while it runs. May be read from any thread."""
        facts = () if (supervisor := self._supervisor) is None else supervisor.engine.publisher.hot.models
        return tuple(each.name for each in facts if each.phase is Phase.LOADED)

    @property
    def slots_in_use(self) -> tuple[int, int]:
        """How many slots run tasks, and how many there are; 0 while it does not run. May be read from any thread."""
        slots = None if (supervisor := self._supervisor) is None else supervisor.engine.tasks.slots
        return (0, 0) if slots is None else (slots.running, slots.total)

    async def prestart(self) -> None:
        """Start the first skill process, if some run in one and there is none. Called on the main loop.

        Does nothing if the worker is not running. Raises `SkillDefinitionError`, `ResourceError` or
        `ProcessStartError`.
        """
        if self._supervisor is not None:
            await self._supervisor.prestart()

    def request_shutdown(self) -> None:
        """Begin to shut down; on the second call, cut that short. Called on the main loop, by signal handlers."""
        if self._supervisor is not None:
            if self._shutdown_preempts:
                self._supervisor.drain_for_preemption(None)
            self._supervisor.request_shutdown()

    def announce_draining(self) -> None:
        """Announce to orchestrators that this worker is about to shut down, ahead of `request_shutdown`.

        May be called from any thread: it works while a skill blocks the main loop. Does nothing if the worker is not
        running.
        """
        if (supervisor := self._supervisor) is not None:
            supervisor.announce_draining()

    def preempt(self, seconds: float | None = None) -> None:
        """Shut down because this machine is taken away in ``seconds``, as on a notice of ``WORKER_PREEMPTION``.

        Tasks see ``ctx.preempted``, and those that can finish in time do; the others are reported as transient, with
        their checkpoints kept. None leaves them ``WORKER_SHUTDOWN_TIMEOUT``. Called on the main loop; does nothing if
        the worker is not running.
        """
        if self._supervisor is not None:
            self._supervisor.preempt(seconds)

    @property
    def ending(self) -> Ending:
        """How the worker's last run ended."""
        return self._ending

    @property
    def shutdown_limit(self) -> float:
        """Seconds that shutting down may take at most, when the worker runs as a process; 0 when it does not run."""
        return self._shutdown_limit

    def rescue(self) -> None:
        """Write to disk what is not there yet: the last resort of a process whose event loop has stopped.

        May be called in any thread.
        """
        if (supervisor := self._supervisor) is not None:
            supervisor.rescue()
            self._ending = supervisor.ending

    async def check_for_cancellation(self, task_id: str) -> bool:
        """Return whether the running task ``task_id`` was cancelled."""
        return self._supervisor is not None and self._supervisor.is_cancelled(task_id)

    # ------------------------------------------------------------------------------------------ inside

    def _running(self, settings: Settings) -> AbstractContextManager[object]:  # noqa: ARG002 - `compat` looks at them
        """Return what is around a run with these settings."""
        return nullcontext()

    def _check_twin(self) -> None:
        """Raise `ConfigError` when skills, resources or middlewares went to another worker of the same file."""
        twin = find_twin(self)
        if twin is None:
            return
        other: Worker = twin.value
        skills = [name for name in other.skills.names() if name not in self.skills.names()]
        lacks = [", ".join(skills)] if skills else []
        lacks += ["resources"] if set(other._resources.kinds) - set(self._resources.kinds) else []
        lacks += ["models"] if set(other._models.kinds) - set(self._models.kinds) else []
        lacks += ["middlewares"] if len(other._middlewares) > len(self._middlewares) else []
        if not lacks:
            _log.warning("%s", twin.explain("has all that the other has"), extra={"action": "imported_twice"})
            return
        has = "does not have" if len(self.skills) else "has no skills, not"
        raise ConfigError([twin.explain(f"{has} the other's {' and '.join(lacks)}")])

    def _provide(self, worker_id: str, given: Mapping[Any, object], world: World = REAL) -> ResourcePlan:
        skills, resources, models, known = self._registry, self._resources, self._models, self._injectables
        return plan_resources(worker_id, skills, resources, models, known, self._packages, given, world)

    def _load_directory(self, settings: Settings) -> None:
        path = Path(settings.skills_dir)
        if not path.is_dir():
            if str(path) != "skills":  # the default need not exist
                advice = "make it, or unset the variable: ./skills is looked for then, and need not exist"
                raise ConfigError([f"WORKER_SKILLS_DIR={path}: there is no directory {path.absolute()}; {advice}"])
            return
        skip = settings.skills_on_error is SkillsOnError.SKIP
        loaded = load_directory(path, on_error="skip" if skip else "stop", on_problem=_skipped)
        if loaded.made is not None:
            self._packages[loaded.made] = path.resolve()
        for blueprint in loaded.blueprints:  # any of them may ask for the resources of any other
            self._add_needs(blueprint)
        for blueprint in loaded.blueprints:
            for definition in blueprint.definitions:
                self._registry.add(definition)
        for setup in loaded.setups:
            self._set_up(setup, skip=skip)

    def _set_up(self, setup: Callable[[Any], object], *, skip: bool) -> None:
        """Call the ``setup`` function of a module of the skills directory."""
        try:
            setup(self)
        except WorkerError:
            raise
        except Exception as error:  # the user's code may raise anything
            where = inspect.getsourcefile(setup) or setup.__module__
            problem = SkillLoadError(where, f"its setup(worker) failed: {type(error).__name__}: {error}")
            problem.__cause__ = error
            if not skip:
                raise problem from error
            _skipped(problem)


def _skipped(error: SkillLoadError) -> None:
    _log.error("skills not loaded: %s", error, exc_info=error.__cause__, extra={"action": "skills_skipped"})
