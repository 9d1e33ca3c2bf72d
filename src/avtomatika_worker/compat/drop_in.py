"""`Worker` and `SkillBlueprint` with the official SDK's signatures and additional methods."""

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
from avtomatika_worker.compat.sigterm import handled_sigterm
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
    """Accept a skill's name, its `SkillInfo`, or a class of such; leave the rest to the core."""
    if inspect.isclass(info) and is_info_class(info):

        def decorate_with_class(func: Callable[..., Any]) -> Any:
            return _skill(decorate, _made(cast("type[Any]", info), func), options)(func)

        return decorate_with_class
    if is_info(info):
        return decorate(**{**options_of(info), **options})
    return decorate(info, **options)


def is_info_class(value: type[Any]) -> bool:
    """Whether a class has `SkillInfo`'s fields."""
    return issubclass(value, SkillInfo) or is_info(value)


def _made(info: type[Any], func: Callable[..., Any]) -> Any:
    return info(name=getattr(info, "name", None) if isinstance(getattr(info, "name", None), str) else func.__name__)


class SkillBlueprint(blueprint.SkillBlueprint):
    """Skills without a worker: define them in a module and add them to a worker with ``include_blueprint``."""

    def __init__(self, name: str | type = "", skill_info_class: type = SkillInfo) -> None:
        del skill_info_class  # any such class is accepted
        super().__init__(name if isinstance(name, str) else "")

    if not TYPE_CHECKING:  # type checkers see the core's signature, and no attributes that do not exist

        def skill(self, name=None, /, **options):
            """Register a function as a skill, as `Worker.skill` does."""
            return _skill(super().skill, options.pop("info", name), options)

        def __getattr__(self, name):
            raise no_attribute(self, name)


class Worker(core.Worker):
    """A worker: a set of skills and the services that bring them tasks.

    Every argument is optional and defaults to ``config``, or to its environment variable (``worker_type`` to
    ``WORKER_TYPE``, ``worker_id`` to ``WORKER_ID``, ``max_concurrent_tasks`` to ``MAX_CONCURRENT_TASKS``,
    ``skills_dir`` to ``WORKER_SKILLS_DIR``). ``settings`` overrides any other setting by its field's name, as in
    ``Worker(settings={"heartbeat_interval": 5})``.

    ``skill_dependencies`` maps a skill to what must be in the hot cache for it to be hot. ``skill_type_limits`` maps a
    skill type to the number of its tasks that may run at the same time. ``capacity_checker`` is called with a skill's
    name, or without an argument, and returns whether another task could start now; it is called often, on the main
    loop, so it must be quick. Raises `ConfigError` for an invalid limit, and for arguments of the official SDK that
    have no meaning here, saying what to use instead.
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
        **former: Never,  # type checkers reject any other name; at run time, a message says more
    ) -> None:
        del skill_info_class  # any such class is accepted
        given: dict[str, object] = {"http_session": http_session, "clients": clients}
        refused = {**{name: value for name, value in given.items() if value not in (None, [])}, **former}
        if refused:
            taken = inspect.signature(Worker).parameters.values()
            refuse_arguments(refused, [each.name for each in taken if each.kind is not each.VAR_KEYWORD])
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
        """The worker's settings under the official SDK's names; changes take effect if made before the start."""
        return self._adopted or self._adopt(WorkerConfig())

    @property
    def _config(self) -> WorkerConfig:
        """The same under the official SDK's only name for it, which programs use."""
        return self.config

    def load_settings(self, environ: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> Settings:
        """Return the settings from ``environ``, `config` and this worker's arguments.

        ``overrides``, by the settings' field names, take precedence over everything; None cancels an argument. Raises
        `ConfigError`.
        """
        if self._adopted is None:
            return super().load_settings(translated(environ), overrides)
        mine = {name: value for name, value in self._overrides.items() if value is not None}
        return self._adopted.load(environ, {**mine, **(overrides or {})})

    def _adopt(self, config: WorkerConfig) -> WorkerConfig:
        """Use ``config`` from now on; the arguments are set on it, so that the last value set counts."""
        for argument, name in _ARGUMENTS.items():
            value = self._overrides.pop(argument, None)
            if value is not None:
                setattr(config, name, value)
        self._adopted = config
        return config

    # ------------------------------------------------------------------------------------------ skills

    if TYPE_CHECKING:

        def load_skills(self, source: Settings | str | os.PathLike[str] | None = None) -> Loaded:
            """Load another directory of skills, besides the one in the settings, which is loaded once.

            Given the settings, load their directory and check every skill. The return value may be awaited, which does
            nothing. Raises what starting the worker raises.
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

        Its form is ``async (ctx, call_next) -> outcome``, or the older ``async (context, next) -> result``; see
        docs/guide/middleware.md.
        """
        super().add_middleware(adapted(checked_middleware(cast("Middleware", middleware))))

    # ------------------------------------------------------------------------------------------ commands, events

    def on_command(self, command_name: str) -> Callable[[F], F]:
        """Register a function as the handler of a command that orchestrators send over the WebSocket.

            @worker.on_command("reload")
            async def reload(command: WorkerCommand) -> None:
                await load(command.params["model"])

        A plain ``def`` is called in a thread. Exceptions are logged. ``WORKER_ENABLE_WEBSOCKETS`` must be on. Raises
        `ConfigError` for a command that already has a handler, and for ``cancel_task``, which the worker handles.
        """
        if not isinstance(cast("object", command_name), str) or not command_name:
            raise ConfigError([f"on_command takes the name of a command, not {command_name!r:.80}"])
        if command_name == CANCEL_TASK:
            raise ConfigError([f"on_command: the worker itself handles {CANCEL_TASK!r}; skills check ctx.cancelled"])
        if command_name in self._handlers:
            raise ConfigError([f"on_command: {command_name!r} already has a handler"])

        def decorate(handler: F) -> F:
            if not callable(handler):
                raise ConfigError([f"on_command({command_name!r}) must decorate a function, not {handler!r:.80}"])
            self._handlers[command_name] = handles(handler)
            return handler

        return decorate

    def emit_event(self, event: object) -> Sent:
        """Send an event that belongs to no running task: a dict or object with ``event_type``, ``payload``, ….

        It may also have ``target_job_id``, ``target_task_id``, ``origin_task_id``, ``priority``, ``metadata``,
        ``origin_worker_id`` and ``security``, as in `TaskContext.send_event`. It is sent to every orchestrator that the
        worker is registered with; awaiting does not wait for that. Returns `Sent`, false if too many events are
        waiting. Raises TypeError or ValueError for an invalid event.
        """
        return Sent(accepted=self._policies.events.put(worker_event(event)))

    # ------------------------------------------------------------------------------------------ hot skills

    def add_to_hot_skills(self, item: str) -> None:
        """Announce that a skill, or something it depends on, is loaded here. May be called from any thread."""
        if not isinstance(cast("object", item), str) or bounded_text(item) != item:
            raise ValueError(f"a hot skill must be a name of at most 2,000 characters, not {item!r:.80}")
        self._policies.hot.add(item)

    def remove_from_hot_skills(self, item: str) -> None:
        """Withdraw an announcement made by `add_to_hot_skills`."""
        self._policies.hot.remove(item)

    def get_hot_skills_state(self) -> set[str]:
        """Return a copy of the names announced as hot."""
        return set(self._policies.hot.names)

    # ------------------------------------------------------------------------------------------ running

    def run_with_health_check(self) -> NoReturn:
        """Do the same as `run`, which always includes a health server."""
        self.run()

    @contextmanager
    def _running(self, settings: Settings) -> Generator[None]:
        self._warn_of_ineffective(settings)
        with handled_sigterm(self.request_shutdown):
            yield

    def _warn_of_ineffective(self, settings: Settings) -> None:
        if self._adopted is not None:
            self._adopted.starts()
        for hint in hints(os.environ):
            _log.warning("%s", hint, extra={"action": "setting_ignored"})
        if self._handlers and not settings.enable_websockets:
            names = ", ".join(self._handlers)
            _log.warning(
                "the WebSocket that carries commands is off: set WORKER_ENABLE_WEBSOCKETS=true (handlers: %s)",
                names,
                extra={"action": "commands_off"},
            )

    def _links(self) -> Sequence[Link]:
        return () if self._supervisor is None else self._supervisor.engine.links


class Loaded:
    """The return value of ``load_skills``: everything is loaded already. It may be awaited."""

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()


def handles(handler: Callable[..., Any]) -> Callable[[Command], Any]:
    """Return a handler for the core that passes a `WorkerCommand` to ``handler``."""
    if inspect.iscoroutinefunction(handler):

        async def handle(command: Command) -> None:
            await handler(WorkerCommand(command))

        return handle
    return lambda command: handler(WorkerCommand(command))
