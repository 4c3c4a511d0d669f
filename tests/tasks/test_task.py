import pkgutil
import subprocess
import sys

import pytest

import orrery.tasks
from orrery.errors import TaskError
from orrery.tasks.task import TASKS, task_named, with_sound


def test_rows_are_stored_under_their_names():
    assert all(name == row.name for name, row in TASKS.items())


def test_a_wrong_name_is_answered_with_the_nearest():
    with pytest.raises(TaskError, match="Did you mean 'image_to_video'"):
        task_named("image2video")


@pytest.mark.parametrize("name", ["text_to_video", "image_to_video", "video_to_video"])
@pytest.mark.parametrize("given", ["none", "all"])
def test_every_video_task_carries_sound(name, given):
    task = with_sound(TASKS[name], given)
    assert (task.sound, task.vision, task.name) == (given, TASKS[name].vision, name)


@pytest.mark.parametrize("name", ["reason", "text_to_image", "policy_no_video"])
def test_tasks_without_moving_pictures_carry_no_sound(name):
    with pytest.raises(TaskError, match="cannot carry sound"):
        with_sound(TASKS[name], "none")


def test_no_module_of_tasks_loads_torch():
    names = [module.name for module in pkgutil.iter_modules(orrery.tasks.__path__)]
    modules = "; ".join(f"import orrery.tasks.{name}" for name in names)
    subprocess.run([sys.executable, "-c", f"{modules}; import sys; assert 'torch' not in sys.modules"], check=True)
