"""`Worker` and `SkillBlueprint` with the signatures of the official SDK, and what it has besides."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Never, NoReturn, TypeVar, cast

from avtomatika_worker.compat.former_environment import hints, translated
from avtomatika_worker.compat.former_names import no_attribute, refuse_arguments
from avtomatika_worker.compat.older_middleware import OlderMiddleware, adapted
from avtomatika_worker.compat.orchestrator_client import OrchestratorClient
from avtomatika_worker.compat.sigterm import heard_sigterm
from avtomatika_worker.compat.skill_info import SkillInfo, is_info, options_of
from avtomatika_worker.compat.worker_command import WorkerCommand, worker_event
from avtomatika_worker.compat.worker_config import WorkerConfig
from avtomatika_worker.config.settings import Settings
from avtomatika_worker.errors import ConfigError
from avtomatika_worker.execution.context import Sent
from avtomatika_worker.execution.middleware import Middleware
from avtomatika_worker.execution.outcome import bounded_text
from avtomatika_worker.link.link import Link
from avtomatika_worker.protocol.messages import CANCEL_TASK, Command
from avtomatika_worker.skills import blueprint
from avtomatika_worker.tasks.command_handlers import CommandHandlers
from avtomatika_worker.tasks.limits import CapacityChecker
from avtomatika_worker.worker import worker as core
from avtomatika_worker.worker.arguments import checked_middleware

F = TypeVar("F", bound=Callable[..., Any])
_log: Final = logging.getLogger("avtomatika_worker")

_ARGUMENTS: Final = {
    "worker_type": "WORKER_TYPE",
    "worker_id": "WORKER_ID",
    "max_concurrent_tasks": "MAX_CONCURRENT_TASKS",
    "skills_dir": "WORKER_SKILLS_DIR",
}


def _skill(decorate: Callable[..., Any], info: Any, options: dict[str, Any]) -> Any:
    """Take a skill's name, its `SkillInfo`, or a class of such; everything else is the core's."""
    if inspect.isclass(info) and is_info_class(info):

        def decorate_with_class(func: Callable[..., Any]) -> Any:
            return _skill(decorate, _made(cast("type[Any]", info), func), options)(func)

        return decorate_with_class
    if is_info(info):
        return decorate(**{**options_of(info), **options})
    return decorate(info, **options)


def is_info_class(value: type[Any]) -> bool:
    """Whether a class is one of infos."""
    return issubclass(value, SkillInfo) or is_info(value)


def _made(info: type[Any], func: Callable[..., Any]) -> Any:
    return info(name=getattr(info, "name", None) if isinstance(getattr(info, "name", None), str) else func.__name__)


class SkillBlueprint(blueprint.SkillBlueprint):
    """Skills without a worker: put them in a module, and let a worker take them with ``include_blueprint``."""

    def __init__(self, name: str | type = "", skill_info_class: type = SkillInfo) -> None:
        del skill_info_class  # any class of infos is taken
        super().__init__(name if isinstance(name, str) else "")

    if not TYPE_CHECKING:  # checkers see the signature of the core, and no attribute that is not there

        def skill(self, name=None, /, **options):
            """Make a function a skill, as `Worker.skill` does."""
            return _skill(super().skill, options.pop("info", name), options)

        def __getattr__(self, name):
            raise no_attribute(self, name)


class Worker(core.Worker):
    """A worker: a set of skills, and the services that bring tasks to them.

    Every argument may be left out; it then comes from ``config``, or from its environment variable (``worker_type``
    from ``WORKER_TYPE``, ``worker_id`` from ``WORKER_ID``, ``max_concurrent_tasks`` from ``MAX_CONCURRENT_TASKS``,
    ``skills_dir`` from ``WORKER_SKILLS_DIR``). ``settings`` overrides any other setting by its field's name, as in
    ``Worker(settings={"heartbeat_interval": 5})``.

    ``skill_dependencies`` maps a skill to what must be in the hot cache for it to be hot. ``skill_type_limits`` maps a
    type of skills to the number of its tasks that may run at the same time. ``capacity_checker`` is asked, with a
    skill's name or without an argument, whether another task could start now; it is called on the main loop, often, so
    it must be quick. Raises `ConfigError` for a limit that is none, and for arguments of the official SDK that have no
    meaning here, with what to use instead.
    """

    def __init__(
        self,
        worker_type: str | None = None,
        max_concurrent_tasks: int | None = None,
        skill_type_limits: Mapping[str, int] | None = None,
        http_session: object = None,
        skill_dependencies: Mapping[str, Sequence[str]] | None = None,
        config: WorkerConfig | None = None,
        capacity_checker: CapacityChecker | None = None,
        clients: object = None,
        skills_dir: str | os.PathLike[str] | None = None,
        skill_info_class: type = SkillInfo,
        *,
        worker_id: str | None = None,
        settings: Mapping[str, Any] | None = None,
        **former: Never,  # checkers refuse every further name; while it runs, a message says more
    ) -> None:
        del skill_info_class  # any class of infos is taken
        given: dict[str, object] = {"http_session": http_session, "clients": clients}
        refuse_arguments({**{name: value for name, value in given.items() if value not in (None, [])}, **former})
        if config is not None and not isinstance(cast("object", config), WorkerConfig):
            raise ConfigError([f"config must be a WorkerConfig, not {config!r:.80}"])
        super().__init__(
            worker_type=worker_type,
            worker_id=worker_id,
            max_concurrent_tasks=max_concurrent_tasks,
            skills_dir=skills_dir,
            skill_dependencies=skill_dependencies,
            skill_type_limits=skill_type_limits,
            capacity_checker=capacity_checker,
            settings=settings,
        )
        self._adopted: WorkerConfig | None = None
        self._handlers: dict[str, Callable[[Command], Any]] = {}
        self._policies = replace(self._policies, handlers=CommandHandlers(self._handlers))
        self._injectables.register(OrchestratorClient, lambda _: OrchestratorClient(self._links))
        if config is not None:
            self._adopt(config)

    # ------------------------------------------------------------------------------------------ settings

    @property
    def config(self) -> WorkerConfig:
        """The worker's settings under the official SDK's names; what is set there before the start has effect."""
        return self._adopted or self._adopt(WorkerConfig())

    @property
    def _config(self) -> WorkerConfig:
        """The same, under the name by which programs reach it in the official SDK, which has no other."""
        return self.config

    def load_settings(self, environ: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> Settings:
        """Return the settings that ``environ``, `config` and this worker's arguments describe.

        ``overrides`` are named like the fields of the settings and win over all; None takes an argument back. Raises
        `ConfigError`.
        """
        if self._adopted is None:
            return super().load_settings(translated(environ), overrides)
        mine = {name: value for name, value in self._overrides.items() if value is not None}
        return self._adopted.load(environ, {**mine, **(overrides or {})})

    def _adopt(self, config: WorkerConfig) -> WorkerConfig:
        """Use ``config`` from now on; arguments go in there, so that what is set last is what counts."""
        for argument, name in _ARGUMENTS.items():
            value = self._overrides.pop(argument, None)
            if value is not None:
                setattr(config, name, value)
        self._adopted = config
        return config

    # ------------------------------------------------------------------------------------------ skills

    if TYPE_CHECKING:

        def load_skills(self, source: Settings | str | os.PathLike[str] | None = None) -> Loaded:
            """Load a directory of skills, besides that of the settings, which is loaded once.

            Given the settings, load their directory and check every skill. Awaiting what is returned is allowed, and
            changes nothing. Raises as the start does.
            """
            ...

    else:

        def load_skills(self, source=None):
            if isinstance(source, Settings):
                super().load_skills(source)
                return Loaded()
            settings = self.load_settings(os.environ)
            directory = Path(source if source is not None else settings.skills_dir)
            if directory.is_dir() or source is not None:
                self._load_directory(replace(settings, skills_dir=directory))
            if directory.resolve() == settings.skills_dir.resolve():
                self._skills_loaded = True
            return Loaded()

        def skill(self, name=None, /, **options):
            return _skill(super().skill, options.pop("info", name), options)

        def __getattr__(self, name):
            raise no_attribute(self, name)

    def add_middleware(self, middleware: Middleware | OlderMiddleware) -> None:
        """Put a middleware around every task; the first added is outermost.

        It is ``async (ctx, call_next) -> outcome``, or of the older form ``async (context, next) -> result``:
        docs/guide/middleware.md.
        """
        super().add_middleware(adapted(checked_middleware(cast("Middleware", middleware))))

    # ------------------------------------------------------------------------------------------ commands, events

    def on_command(self, command_name: str) -> Callable[[F], F]:
        """Let a function handle the commands of this name that orchestrators send over the WebSocket.

            @worker.on_command("reload")
            async def reload(command: WorkerCommand) -> None:
                await load(command.params["model"])

        A plain ``def`` is called in a thread. What it raises is logged. ``WORKER_ENABLE_WEBSOCKETS`` must be on. Raises
        `ConfigError` for a name that is taken, and for ``cancel_task``, which the worker handles itself.
        """
        if not isinstance(cast("object", command_name), str) or not command_name:
            raise ConfigError([f"on_command takes the name of a command, not {command_name!r:.80}"])
        if command_name == CANCEL_TASK:
            raise ConfigError([f"on_command: {CANCEL_TASK!r} is the worker's own; skills see ctx.cancelled"])
        if command_name in self._handlers:
            raise ConfigError([f"on_command: {command_name!r} has a handler already"])

        def decorate(handler: F) -> F:
            if not callable(handler):
                raise ConfigError([f"on_command({command_name!r}) decorates a function, not {handler!r:.80}"])
            self._handlers[command_name] = handles(handler)
            return handler

        return decorate

    def emit_event(self, event: object) -> Sent:
        """Send an event that belongs to no running task: a dict, or an object, of ``event_type``, ``payload``, ….

        ``target_job_id``, ``target_task_id``, ``origin_task_id``, ``priority``, ``metadata``, ``origin_worker_id`` and
        ``security``, as `TaskContext.send_event` takes them, may be there. It is sent to all orchestrators that the
        worker is registered at; awaiting does not wait for that. Returns `Sent`, false when too many wait. Raises
        TypeError and ValueError for what is no event.
        """
        return Sent(accepted=self._policies.events.put(worker_event(event)))

    # ------------------------------------------------------------------------------------------ hot skills

    def add_to_hot_skills(self, item: str) -> None:
        """Announce that a skill, or what a skill depends on, is loaded here. May be called from any thread."""
        if not isinstance(cast("object", item), str) or bounded_text(item) != item:
            raise ValueError(f"what is hot has a name, a text of at most 2,000 characters, not {item!r:.80}")
        self._policies.hot.add(item)

    def remove_from_hot_skills(self, item: str) -> None:
        """Take back what `add_to_hot_skills` announced."""
        self._policies.hot.remove(item)

    def get_hot_skills_state(self) -> set[str]:
        """Return a copy of the names announced as hot."""
        return set(self._policies.hot.names)

    # ------------------------------------------------------------------------------------------ running

    def run_with_health_check(self) -> NoReturn:
        """Run as `run` does, which has a health server, too."""
        self.run()

    @contextmanager
    def _running(self, settings: Settings) -> Generator[None]:
        self._say_what_has_no_effect(settings)
        with heard_sigterm(self.request_shutdown):
            yield

    def _say_what_has_no_effect(self, settings: Settings) -> None:
        if self._adopted is not None:
            self._adopted.starts()
        for hint in hints(os.environ):
            _log.warning("%s", hint, extra={"action": "setting_ignored"})
        if self._handlers and not settings.enable_websockets:
            names = ", ".join(self._handlers)
            _log.warning(
                "commands come over a WebSocket, which is off: set WORKER_ENABLE_WEBSOCKETS=true (handlers: %s)",
                names,
                extra={"action": "commands_off"},
            )

    def _links(self) -> Sequence[Link]:
        return () if self._supervisor is None else self._supervisor.engine.links


class Loaded:
    """The answer of ``load_skills``: everything is loaded. It may be awaited."""

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()


def handles(handler: Callable[..., Any]) -> Callable[[Command], Any]:
    """Return a handler of the core's that gives ``handler`` a `WorkerCommand`."""
    if inspect.iscoroutinefunction(handler):

        async def handle(command: Command) -> None:
            await handler(WorkerCommand(command))

        return handle
    return lambda command: handler(WorkerCommand(command))
