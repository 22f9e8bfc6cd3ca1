"""Choose the methods and tasks that were asked for, cross them, digest them, and say what that costs."""

from bench.plan.choose import choose_asked_tasks, choose_methods, choose_own_tasks, choose_tasks, with_budgets
from bench.plan.cross import make_plan, method_config

__all__ = [
    "choose_asked_tasks",
    "choose_methods",
    "choose_own_tasks",
    "choose_tasks",
    "make_plan",
    "method_config",
    "with_budgets",
]
