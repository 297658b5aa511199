from django.apps import AppConfig


class PaymentsConfig(AppConfig):
    """Payments: webhook deliveries and the ledger of transactions."""

    name = "payments"
    label = "payments"
    verbose_name = "Payments"

    def ready(self) -> None:
        from payments import checks, chores, console

        checks.connect()
        console.connect()
        chores.connect()
