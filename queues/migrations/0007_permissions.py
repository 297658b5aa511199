"""The permissions of the newer verbs."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("queue", "0006_functions")]
    operations = [
        migrations.AlterModelOptions(
            name="task",
            options={
                "ordering": ["-id"],
                "permissions": [
                    ("retry_task", "Can retry failed and cancelled tasks"),
                    ("requeue_task", "Can requeue scheduled and stuck tasks"),
                    ("cancel_task", "Can cancel tasks"),
                    ("release_task", "Can take running tasks back from their workers, uncharged"),
                    ("set_priority_task", "Can set the priority of waiting tasks"),
                    ("move_task", "Can move waiting tasks to another queue"),
                    ("run_again_task", "Can run completed tasks again"),
                ],
            },
        )
    ]
