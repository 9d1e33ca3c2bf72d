"""A new process's instructions: how to import the user's code, and which skills to run."""

from __future__ import annotations

import logging
import pickle
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec

from avtomatika_worker.errors import ResourceError, SkillDefinitionError
from avtomatika_worker.execution.processes.imports import shadowed_modules
from avtomatika_worker.skills.binding import underlying
from avtomatika_worker.skills.model import ModelLoader
from avtomatika_worker.skills.resource import Resource, ResourceDefinition
from avtomatika_worker.skills.skill import SkillDefinition
from avtomatika_worker.skills.type_hints import name_of

_CANNOT_PICKLE: Final = (pickle.PicklingError, AttributeError, TypeError, ValueError, RecursionError, ImportError)


class ProcessSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a skill process is made from.

    ``skills``, ``resources`` and ``models`` are pickled definitions by name: their functions are pickled as module and
    qualified name, and imported there. ``given`` are resource values, pickled with their types. ``packages`` maps the
    names of skills directories to their paths.
    """

    worker_id: str
    skills: Mapping[str, bytes]
    resources: Mapping[str, bytes]
    given: bytes
    packages: Mapping[str, str]
    models: Mapping[str, bytes] = msgspec.field(default_factory=dict[str, bytes])

    def message(self, environ: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
        """Return the process's instructions, with the current import path and logger levels.

        ``environ`` are the variables that it was started with and that its program has to leave as they are.
        """
        return {
            "worker_id": self.worker_id,
            "skills": dict(self.skills),
            "resources": dict(self.resources),
            "models": dict(self.models),
            "given": self.given,
            "packages": dict(self.packages),
            "path": list(sys.path),
            "shadowed": shadowed_modules(sys.path),
            "main": _main_module() if self._names_main() else None,
            "log_levels": _log_levels(),
            "environ": dict(environ),
        }

    def _names_main(self) -> bool:
        """Whether anything is defined in the program's main module: only then must that be run again."""
        pickled = (*self.skills.values(), *self.resources.values(), *self.models.values(), self.given)
        return any(b"__main__" in each for each in pickled)


def make_process_spec(
    worker_id: str,
    skills: Iterable[SkillDefinition],
    resources: Iterable[Resource],
    given: Mapping[Any, object],
    packages: Mapping[str, Path],
    loaders: Iterable[ModelLoader] = (),
) -> ProcessSpec:
    """Return the spec. Raises `SkillDefinitionError` or `ResourceError` if another process could not import it."""
    resources = tuple(resources)
    loaders = tuple(loaders)
    kinds = [*(each.kind for each in resources), *(each.kind for each in loaders)]
    wanted = {kind: given[kind] for kind in kinds if kind in given}
    return ProcessSpec(
        worker_id=worker_id,
        skills={each.name: _pickled_skill(each) for each in skills},
        resources={each.name: _pickled_resource(each) for each in resources if each.kind not in wanted},
        models={each.name: _pickled_model(each) for each in loaders},
        given=_pickled_values(wanted),
        packages={name: str(path) for name, path in packages.items()},
    )


def _pickled_skill(definition: SkillDefinition) -> bytes:
    if problem := not_importable(definition.func):
        raise SkillDefinitionError(definition.name, f"executor='process' needs an importable function: {problem}")
    # The worker validates events, and the namespace that surrounds the function does not exist in the process.
    reported, options = replace(definition.declaration, events=None, properties={}), definition.options
    if options.batch is not None:  # the worker makes the batches
        options = replace(options, batch=options.batch.without_functions())
    try:
        return pickle.dumps(replace(definition, declaration=reported, options=options, localns={}))
    except _CANNOT_PICKLE as error:
        problem = f"executor='process': the skill cannot be sent to a skill process: {error}"
        raise SkillDefinitionError(definition.name, problem) from error


def _pickled_resource(resource: Resource) -> bytes:
    return _pickled_maker(resource.definition, replace(resource.definition, localns={}))


def _pickled_model(loader: ModelLoader) -> bytes:
    definition = loader.definition
    return _pickled_maker(definition.made, replace(definition, made=replace(definition.made, localns={})))


def _pickled_maker(maker: ResourceDefinition, sent: object) -> bytes:
    if problem := not_importable(maker.func):
        raise ResourceError(maker.name, f"a skill with executor='process' needs it: {problem}")
    try:
        return pickle.dumps(sent)
    except _CANNOT_PICKLE as error:
        raise ResourceError(maker.name, f"cannot be sent to a skill process: {error}") from error


def _pickled_values(values: Mapping[Any, object]) -> bytes:
    for kind, value in values.items():
        try:
            pickle.dumps((kind, value))
        except _CANNOT_PICKLE as error:
            problem = f"the value given for it cannot be sent to a skill process: {error}"
            raise ResourceError(name_of(kind), problem) from error
    return pickle.dumps(dict(values))


def not_importable(func: Callable[..., Any]) -> str | None:
    """Return why another process cannot import a function, or None if it can."""
    inner = underlying(func)
    module, name = getattr(inner, "__module__", None), getattr(inner, "__qualname__", None)
    if module is None or name is None:
        return None  # an object: pickle decides
    place = f"{module}:{name}"
    if "<lambda>" in name:
        return f"{place} is a lambda"
    if "<locals>" in name:
        return f"{place} is defined inside a function; move it to the top level of a module"
    if module == "__main__" and _main_module() is None:
        return f"{place} is defined in a program that is not a file"
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not inner and getattr(found, "__func__", found) is not getattr(inner, "__func__", inner):
        return f"{place} now refers to something else; a decorator above @worker.skill belongs below it"
    return None


def _main_module() -> dict[str, str] | None:
    """Return how to run the program's main module again, under another name; None if it is not a file."""
    main: Any = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return {"module": spec.name}
    file = getattr(main, "__file__", None)
    return {"file": str(Path(file).absolute())} if file is not None else None


def _log_levels() -> dict[str, int]:
    """Return the loggers' levels: records that the worker would not write need not be sent."""
    loggers = logging.root.manager.loggerDict.items()
    levels = {name: each.level for name, each in loggers if isinstance(each, logging.Logger) and each.level}
    return {"": logging.root.level, **levels}
