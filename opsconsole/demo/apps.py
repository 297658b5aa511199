from django.apps import AppConfig


class DemoConfig(AppConfig):
    """What only the demo has: its task types and its first tasks."""

    name = "opsconsole.demo"
    label = "demo"
