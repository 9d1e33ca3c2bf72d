"""A program that sets, when it is imported, which devices are seen."""

import os

from avtomatika_worker import SkillBlueprint

os.environ["CUDA_VISIBLE_DEVICES"] = "0,1"
skills = SkillBlueprint("gpus")


@skills.skill(executor="process", gpus=1)
def see() -> dict[str, str]:
    return {"seen": os.environ["CUDA_VISIBLE_DEVICES"]}
