"""The report knows every task of `evaluate`."""

from ser_jax.evaluate.tasks import TASKS
from ser_jax.report import texts as report_texts


def test_every_task_has_its_place():
    reported = {task for tasks in report_texts.TASKS.values() for task in tasks}
    assert reported | {"pictures"} == TASKS.keys()
    all_tasks = {name for name, task in TASKS.items() if task.is_in_all}
    assert reported - all_tasks <= set(report_texts.OPTIONAL_TASKS)
