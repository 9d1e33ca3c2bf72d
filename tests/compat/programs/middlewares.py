"""Middlewares of the older form, and a blueprint."""

import asyncio
from typing import Any

from avtomatika_worker import SkillBlueprint, SkillInfo, Worker, WorkerConfig

config = WorkerConfig()
config.WORKER_TYPE = "guarded"
config.COST_PER_SKILL = {"guarded": 0.5}
config.INSTALLED_SOFTWARE["ffmpeg"] = "6.0"
config.INSTALLED_ARTIFACTS = [{"name": "model-a", "version": "1"}]
config.RESOURCES = {
    "cpu_cores": 8,
    "ram_gb": 32.0,
    "devices": [{"type": "gpu", "model": "T4", "id": "0", "properties": {"memory_gb": 16}}],
}
config.EXTRA_CAPABILITIES = {"zone": "eu"}
worker = Worker("guarded", 8, config=config)


class Context:
    async def __call__(self, context: Any, next_handler: Any) -> Any:
        context["handler_kwargs"]["keys"] = sorted(set(context) - {"s3_manager"})
        return await next_handler()


async def guard(context: Any, next: Any) -> Any:
    params = context["params"]
    if params.get("deny"):
        return {"status": "failure", "error": {"code": "PERMANENT_ERROR", "message": "denied"}}
    params["seen"] = context["skill_name"]
    try:
        return await next()
    except KeyError as error:
        return {"status": "success", "data": {"missing": error.args[0]}}


async def stamp(context: Any, next: Any) -> Any:
    result = await next()
    if isinstance(result, dict) and "data" in result:
        result["data"]["stamped"] = True
    return result


for each in (Context(), guard, stamp):
    worker.add_middleware(each)

blueprint = SkillBlueprint()


@blueprint.skill(SkillInfo(name="guarded", type="text", description="Guarded", version="2.0.0", properties={"a": 1}))
async def guarded(params: dict[str, Any], keys: Any = None) -> dict[str, Any]:
    return {"status": "success", "data": {"params": params, "keys": keys, "wanted": params["wanted"]}}


worker.include_blueprint(blueprint)

if __name__ == "__main__":
    asyncio.run(worker.main())
