from django.apps import AppConfig
from django.db.models.signals import post_migrate


class QueuesConfig(AppConfig):
    """The queue.

    People read "queue" everywhere (label, URLs, permissions, tables). The folder is `queues`
    because a top-level package named `queue` would hide Python's own module of that name, which
    psycopg, asgiref and pytest import.
    """

    name = "queues"
    label = "queue"
    verbose_name = "Queue"

    def ready(self) -> None:
        from queues import registry, upkeep

        registry.autodiscover()
        post_migrate.connect(upkeep.after_migrate, dispatch_uid="queue.after_migrate")
