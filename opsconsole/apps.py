from django.apps import AppConfig
from django.db.models.signals import post_migrate


class OpsConsoleConfig(AppConfig):
    """The project itself: its commands, roles and health checks."""

    name = "opsconsole"
    label = "opsconsole"
    verbose_name = "OpsConsole"

    def ready(self) -> None:
        from opsconsole import roles

        post_migrate.connect(roles.after_migrate, dispatch_uid="opsconsole.after_migrate")
